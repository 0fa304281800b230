"""What the batch-norm layers of a model leave of a pass: means and unbiased variances."""

from __future__ import annotations

import torch

from batchscale.errors import RecipeError
from batchscale.words import counted
from batchscale.worker.shared_batch_norm import SharedPass, alone, shared_part


class Statistics:
    """Where the batch-norm layers of a model leave a pass's means and unbiased variances.

    Args:
        layers: channels of every layer.
        dtype, device: of the statistics.
        span: g, workers that are normalised together.

    Attributes:
        layers: how many.
        rows: (groups in a pass at most, 2 * sum of channels); mean then variance, layer by layer.
        workers: of the pass at hand.
        shared: of the pass at hand, where its group's images lie in more tensors than its own.
        values: offset of each layer that has run in this pass -> values that a channel's statistics were taken from.
    """

    def __init__(self, layers: list[int], dtype: torch.dtype, device: torch.device, span: int = 1) -> None:
        self.span, self.layers = span, len(layers)
        self.chunks = [c for channels in layers for c in (channels, channels)]
        self.rows = torch.zeros((1, sum(self.chunks)), dtype=dtype, device=device)
        self.workers = span
        self.shared: SharedPass | None = None
        self.values: dict[int, int] = {}

    def begin_pass(self, workers: int, shared: SharedPass | None = None) -> None:
        """Make room for a pass of so many workers, with nothing of the pass before it.

        torch's kernel leaves statistics behind as 0 x row + 1 x statistic: a row that is not finite would stay so.

        Args:
            workers: of the pass: whole groups.
            shared: workers of one group instead, whose statistics come from more than the pass's tensor.

        Raises:
            RecipeError: they are no whole groups.
        """
        self.shared = shared
        if shared is None and workers % self.span:
            raise RecipeError(
                f"batch_norm.span={self.span}: a pass of {counted(workers, 'worker')} holds no whole groups; give it a "
                f"multiple"
            )
        self.workers = workers
        self.values.clear()
        if len(self.rows) < self._groups:
            self.rows = self.rows.new_zeros((self._groups, self.rows.shape[1]))
        else:
            self.rows[: self._groups].zero_()

    def begin_part(self, workers: int) -> None:
        """Make room for a pass by itself: of whole groups, or of a part of one, normalised by its own statistics."""
        self.begin_pass(workers, shared_part(self.span, 0, alone) if workers % self.span else None)

    def count_one_worker(self) -> None:
        """From now on the pass at hand counts as one worker's: every lane of it brings the group's statistics once."""
        self.workers = 1

    @property
    def _groups(self) -> int:
        return 1 if self.shared else self.workers // self.span

    def of_layer(self, offset: int, channels: int, values: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(means, variances), each a view (groups, channels).

        Args:
            offset: of the layer in a row.
            channels: of the layer.
            values: of the pass that a channel has, in all groups together.

        Raises:
            RecipeError: the layer runs twice in one forward pass, or has a single value to normalise.
        """
        if values == self._groups and self.shared is None:  # so one image of one position a group: n g = 1
            raise RecipeError(
                "minibatch.per_worker=1, batch_norm.span=1: a batch-norm layer of this model sees one value a channel, "
                "which normalises to 0 whatever it is; use minibatch.per_worker=2 or more, or batch_norm.span=2"
            )
        if offset in self.values:
            raise RecipeError(
                "model: a batch-norm layer runs twice in one forward pass: it has no one mean over k workers; "
                "use a layer for each place"
            )
        self.values[offset] = values // self._groups
        rows = self.rows[: self._groups]
        return rows[:, offset : offset + channels], rows[:, offset + channels : offset + 2 * channels]

    def absent(self) -> list[int]:
        """The numbers of the layers that left no statistics in this pass: passed over, or kept in evaluation mode."""
        if len(self.values) == self.layers:
            return []
        return [number for number, offset in enumerate(self._offsets()) if offset not in self.values]

    def _offsets(self) -> list[int]:
        return [sum(self.chunks[: 2 * number]) for number in range(self.layers)]

    def summed(self) -> torch.Tensor:
        """The sum over the pass's workers, each with its group's, (2 * sum of channels,)."""
        # By plain additions of rows: in exact mode a pass is one group, so nothing is added here.
        groups = self.rows[0] if self._groups == 1 else self.rows[: self._groups].sum(0)
        in_each = self.workers // self._groups
        return groups if in_each == 1 else groups * in_each
