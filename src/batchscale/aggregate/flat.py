"""One flat buffer for all that a step sums: extras of the forward pass, gradients, and which parameters were used.

    [ extras | gradients, last parameter first (the order in which backward makes them) | counts | used ]

``grad`` of every trainable parameter is a view into it, strided like its parameter. Every gradient begins at a
multiple of 64 bytes, as torch's own allocations do: vectorised kernels may give other bits at other offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

_ALIGN_BYTES = 64


def _rounded_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def _pieces(lengths: Sequence[int], start: int = 0, unit: int = 1) -> list[tuple[int, int]]:
    """(offset, length) of pieces one after the other, each beginning at a multiple of ``unit``."""
    pieces = []
    for length in lengths:
        start = _rounded_up(start, unit)
        pieces.append((start, length))
        start += length
    return pieces


class FlatGradients:
    """The buffer, its views and its pieces.

    Args:
        parameters: frozen ones are left out; the last comes first.
        extras: name -> lengths of the pieces that are summed with the gradients, such as {"loss": [1]}.
        counts: names of whole numbers that are summed too; a name that stands m times has m of them.
        zeros: (length, dtype) -> where the buffer lies, such as a reducer's shared memory.

    Attributes:
        buffer: (length,), of the parameters' type.
        extras: name -> view of all its pieces together.
        counts: name -> view (m,).
        gradients: view of all gradients, with zeros between them.
        used: (trainable parameters,): how many processes (exact: workers) gave each a gradient.
        pieces: (offset, length) of every extra's piece, then of every gradient: the units of scaling and of buckets.
        arrived: the last parameter that backward gave a gradient, by itself; whoever asks sets it back to None.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        extras: Mapping[str, Sequence[int]],
        counts: Sequence[str],
        zeros: Callable[[int, torch.dtype], torch.Tensor] | None = None,
    ) -> None:
        self.parameters = [p for p in parameters if p.requires_grad][::-1]
        first = self.parameters[0]
        if any(p.dtype != first.dtype or p.device != first.device for p in self.parameters):
            raise ValueError("all trainable parameters must have one type and one device")
        unit = max(_ALIGN_BYTES // first.element_size(), 1)
        self.pieces = _pieces([length for lengths in extras.values() for length in lengths])
        self.first_gradient = len(self.pieces)
        end = sum(length for _, length in self.pieces)
        gradients = _pieces([parameter.numel() for parameter in self.parameters], end, unit)
        self.pieces += gradients
        end = _rounded_up(sum(gradients[-1]), unit)
        total = end + len(counts) + len(self.parameters)
        if zeros is None:
            self.buffer = torch.zeros(total, dtype=first.dtype, device=first.device)
        else:
            self.buffer = zeros(total, first.dtype)
        spans = zip(extras, _pieces([sum(lengths) for lengths in extras.values()]), strict=True)
        self.extras = {name: self.buffer[offset : offset + length] for name, (offset, length) in spans}
        firsts = {name: end + counts.index(name) for name in counts}
        self.counts = {name: self.buffer[start : start + counts.count(name)] for name, start in firsts.items()}
        self.used = self.buffer[end + len(counts) :]
        self.gradients = self.buffer[gradients[0][0] : end]
        self._views = [
            self.buffer[o : o + length].as_strided(
                p.shape, torch.empty_like(p).stride(), self.buffer.storage_offset() + o
            )  # dense, also where p is not
            for p, (o, length) in zip(self.parameters, self.pieces[self.first_gradient :], strict=True)
        ]

        self._seen = [0] * len(self.parameters)
        # What was written last stays on the device: it is sent anew only where backward reached other parameters.
        self._written, self._own = [1] * len(self.parameters), torch.ones_like(self.used)
        self.arrived: nn.Parameter | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def on_gradient(self, then: Callable[[int], None]) -> None:
        """Note which parameters get a gradient, and call ``then`` with the number of each as backward makes it."""

        def hook_of(index: int) -> Callable[[nn.Parameter], None]:
            def hook(parameter: nn.Parameter) -> None:
                self._seen[index] = 1
                self.arrived = parameter
                then(index)

            return hook

        for index, parameter in enumerate(self.parameters):
            handle = parameter.register_post_accumulate_grad_hook(hook_of(index))  # type: ignore[no-untyped-call]
            self._handles.append(handle)

    def close(self) -> None:
        """Take the hooks off the parameters."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def add(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Add gradients that backward has left elsewhere, in the order of ``parameters``; None of one not used."""
        for index, (gradient, view) in enumerate(zip(gradients, self._views, strict=True)):
            if gradient is not None:
                view.add_(gradient)
                self._seen[index] = 1

    def count_used(self) -> None:
        """Write into ``used`` which parameters got a gradient since ``attach``."""
        if self._seen != self._written:
            self._written = list(self._seen)
            self._own.copy_(torch.tensor(self._seen, dtype=self.used.dtype))
        self.used.copy_(self._own)

    def attach(self) -> None:
        """Make every parameter's ``grad`` its view, and set all to zero: the beginning of a step."""
        self.buffer.zero_()
        self._seen = [0] * len(self._seen)
        for parameter, view in zip(self.parameters, self._views, strict=True):
            parameter.grad = view

    def detach_unused(self) -> None:
        """``grad`` of a parameter that no worker used becomes None: as in plain torch, it is not updated."""
        if self.used.min() <= 0:
            self.detach(self.used.tolist())

    def detach(self, used: Sequence[float]) -> None:
        """``detach_unused``, where the host has the numbers of ``used``."""
        for parameter, times in zip(self.parameters, used, strict=True):
            if not times:
                parameter.grad = None
