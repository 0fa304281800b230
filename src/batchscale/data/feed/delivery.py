"""How a step's examples come to the device as passes.

CPU        the feed's threads gather and normalise all passes of a step
device     they gather and pack; a pass's bytes are carried there when it is taken (``carrier.py``), then normalised
resident   the device holds the examples; carried is what was drawn: their numbers, places of crops, mirrors
decoded    the device decodes (``folders/nvjpeg.py``): a step's pixels are there, a pass is normalised when it is taken

What is evaluated comes in chunks, carried to a device like passes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from batchscale.data.augmentation import Augmentation, Indices, draw
from batchscale.data.examples import Examples, TensorExamples
from batchscale.data.feed.carrier import Carried, Carrier, OnDemand
from batchscale.data.feed.copies import Copies, copies_of
from batchscale.data.feed.normalizer import Batch, Normalizer
from batchscale.data.folders.nvjpeg import DecodedOnDevice
from batchscale.data.threads import parts_ahead
from batchscale.structure import mapped, num_examples, part, tensors


class Delivery(ABC):
    """Makes the passes of a step."""

    @abstractmethod
    def passes(self, drawn: tuple[Indices, Indices], parts: Sequence[slice]) -> Sequence[Batch]:
        """Of these (epochs, examples), in these parts; called by the feed's threads."""


class _Made(Delivery):
    """The passes of a step on the CPU: all made at once, by the thread that gathers them."""

    def __init__(self, gather: Callable[[Indices, Indices], Any], normalize: Normalizer) -> None:
        self._gather, self._normalize = gather, normalize

    def passes(self, drawn: tuple[Indices, Indices], parts: Sequence[slice]) -> Sequence[Batch]:
        """Of these (epochs, examples), in these parts."""
        inputs, targets = self._gather(*drawn)
        return [Batch(self._normalize(part(inputs, examples)), part(targets, examples)) for examples in parts]


class _Carried(Delivery):
    """The passes of a step on a device: gathered and packed by the feed's threads, carried there as they are taken.

    Args:
        gather: what is carried, of (epochs, examples).
        finish: makes inputs and targets of it on the device.
        slots: steps that may be ready or in use at once.
    """

    def __init__(
        self,
        gather: Callable[[Indices, Indices], Any],
        finish: Callable[[Any], tuple[Any, Any]],
        normalize: Normalizer,
        copies: Copies,
        slots: int,
    ) -> None:
        def batch(carried: Any) -> Batch:
            inputs, targets = finish(carried)
            return Batch(normalize(inputs), targets)

        self._gather, self._carrier = gather, Carrier(copies, slots, batch)

    def passes(self, drawn: tuple[Indices, Indices], parts: Sequence[slice]) -> Sequence[Batch]:
        """Of these (epochs, examples), in these parts."""
        gathered = self._gather(*drawn)
        return self._carrier.load([part(gathered, examples) for examples in parts])


class _Decoded(Delivery):
    """The passes of a step whose images the device has decoded.

    Args:
        examples: that it decodes.
    """

    def __init__(self, examples: DecodedOnDevice, seed: int, augmentation: Augmentation, normalize: Normalizer) -> None:
        self._gather, self._examples = examples.augmented(seed, augmentation), examples
        self._normalize = normalize

    def passes(self, drawn: tuple[Indices, Indices], parts: Sequence[slice]) -> Sequence[Batch]:
        """Of these (epochs, examples), in these parts."""
        return OnDemand(partial(self._batch, self._gather(*drawn), parts), range(len(parts)))

    def _batch(self, pair: Any, parts: Sequence[slice], number: int) -> Batch:
        inputs, targets = part(pair, parts[number])
        for tensor in tensors(pair):
            self._examples.used(tensor)
        return Batch(self._normalize(inputs), targets)


def delivery_of(
    images: Examples,
    seed: int,
    augmentation: Augmentation,
    normalizer: Normalizer,
    resident: TensorExamples | None = None,
    copies: Copies | None = None,
) -> Delivery:
    """The way of these examples to the normalizer's device.

    Args:
        images: what is trained on.
        seed, augmentation: of what is drawn.
        normalizer: makes the floats.
        resident: the same images, on the device; None where they lie on the host.
        copies: to a device; None for those of the normalizer's.
    """
    if isinstance(images, DecodedOnDevice):
        return _Decoded(images, seed, augmentation, normalizer)
    if normalizer.device.type == "cpu" and copies is None:
        return _Made(images.augmented(seed, augmentation), normalizer)
    gather = partial(draw, seed, augmentation) if resident else images.augmented(seed, augmentation)
    finish = resident.picked(augmentation) if resident else _as_it_is
    # One step in use, the next ones ready, and one whose copies may still be read.
    return _Carried(gather, finish, normalizer, copies or copies_of(normalizer.device), images.steps_ahead + 2)


def _as_it_is(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return pair


def batches_ahead(
    read: Callable[[slice], tuple[Any, Any]],
    chunks: Sequence[slice],
    normalize: Callable[[Any], Any],
    device: torch.device,
    copies: Copies | None = None,
) -> Iterator[Batch | None]:
    """Chunks of examples, not augmented, on a device: each is read while the one before it is used.

    Args:
        read: inputs and targets of some examples; such as ``Examples.readable``.
        chunks: what is to be read.
        normalize: makes the floats, such as a ``Normalizer``.
        device: of what it makes.
        copies: to the device; None for its own.

    Returns:
        A batch a chunk, which alone holds memory of the device; None where not one example of it can be read.
    """
    on_host = device.type == "cpu" and copies is None
    carrier = None if on_host else Carrier(copies or copies_of(device), 2, _as_it_is)

    def packed(chunk: slice) -> Sequence[tuple[Any, Any]] | None:
        pair = read(chunk)
        if not num_examples(pair[1]):
            return None
        return [pair] if carrier is None else carrier.load([pair])

    def batch(passes: Sequence[tuple[Any, Any]]) -> Batch:
        inputs, targets = passes[0]
        if isinstance(passes, Carried):
            passes.close()
            targets = mapped(torch.clone, targets)  # a view would hold the bytes of the inputs, too
        return Batch(normalize(inputs), targets)

    for passes in parts_ahead(packed, chunks):
        yield None if passes is None else batch(passes)
