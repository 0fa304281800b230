"""One long text as examples: windows of T tokens, each with the same tokens one place further on as its targets.

    x_i = (c_iT, ..., c_iT+T-1),   y_i = (c_iT+1, ..., c_iT+T),   N = floor((L - 1) / T)

The windows are fixed, each is seen once an epoch; the order is the epoch's shuffle. None is padded: fewer than T tokens
at the end of the text are left out. The text lies in memory once, in as few bytes a token as will do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from batchscale.data.augmentation import Augmentation, Indices
from batchscale.data.contents import digest
from batchscale.data.examples import Examples, Pairs

_DIGESTED = 1 << 16  # windows at once


class TextWindows(Examples):
    """Windows of a text.

    Args:
        tokens: (L,) of any whole numbers, L > T.
        sequence: T.
        vocabulary: the characters by their number; "bytes" of bytes.
        numbers: of the windows, int64 (N,); None for all.

    Attributes:
        left_out: tokens at the end that no window has as an input or a target.
    """

    raw = False

    def __init__(
        self, tokens: torch.Tensor, sequence: int, vocabulary: str, numbers: torch.Tensor | None = None
    ) -> None:
        self._tokens, self._sequence, self._vocabulary, self._numbers = tokens, sequence, vocabulary, numbers
        self._windows = tokens.unfold(0, sequence + 1, sequence)  # views, which overlap in one token
        self.shape = (sequence,)
        self.left_out = len(tokens) - 1 - len(self._windows) * sequence

    def __len__(self) -> int:
        return len(self._windows) if self._numbers is None else len(self._numbers)

    def part(self, part: slice) -> Pairs:
        """Consecutive windows."""
        return _pairs(self._windows[part] if self._numbers is None else self._windows[self._numbers[part]])

    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Pairs]:
        """One gather; nothing is random in a window."""

        def minibatch(epochs: Indices, examples: Indices) -> Pairs:
            index = torch.from_numpy(examples)
            return _pairs(self._windows[index if self._numbers is None else self._numbers[index]])

        return minibatch

    def select(self, examples: Indices) -> TextWindows:
        """These windows of the same text, which is not copied."""
        index = torch.from_numpy(examples)
        numbers = index if self._numbers is None else self._numbers[index]
        return TextWindows(self._tokens, self._sequence, self._vocabulary, numbers)

    def digests(self) -> dict[str, str]:
        """Of the tokens of all windows; the vocabulary itself, without which weights are of no use."""
        kind = f"{self._tokens.dtype} {self._sequence}".encode()
        if self._numbers is None:
            blocks = [self._tokens[: len(self._tokens) - self.left_out]]
        else:
            blocks = [self._windows[numbers] for numbers in torch.split(self._numbers, _DIGESTED)]
        tokens = digest([kind, *(block.contiguous().view(torch.uint8).numpy() for block in blocks)])
        return {"tokens": tokens, "vocabulary": self._vocabulary}


def _pairs(windows: torch.Tensor) -> Pairs:
    """Inputs and targets int64 (m, T) of windows (m, T + 1)."""
    return windows[:, :-1].long().contiguous(), windows[:, 1:].long().contiguous()
