"""Examples of one's own map-style Dataset: any object with ``__getitem__`` and ``__len__``, as torch's loaders take.

In training item i is drawn under key(seed, epoch, i), elsewhere under key(i): augmentation inside ``__getitem__`` hangs
on these alone, so it is the same for every number of processes, and after a resume.

Whether an item hangs on its key alone is tried before training: the first ones and some others are drawn twice.

Cost: an item's bytes go through a pipe once, about a gigabyte a second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from batchscale.data.augmentation import Augmentation, Indices
from batchscale.data.contents import digest
from batchscale.data.examples import Examples, Pairs, TensorExamples
from batchscale.data.item_readers import ItemReaders, Request
from batchscale.data.items import blocks, check_form, form, laid_end_to_end, stacked
from batchscale.data.labels import check_labels
from batchscale.errors import DataError
from batchscale.randomness import bits, key, shuffled

# Streams of the items' keys, and of the choice of those that stand for all; never to be renumbered.
_TRAINED, _STILL, _CHOICE = 301, 302, 303

_FIRST, _SPREAD = 4, 4  # items that are drawn twice before training: the first ones, and some from anywhere
_SAMPLE = 1024  # items whose pixels give mean and deviation


class ItemSet:
    """A map-style Dataset, and what its first items have shown.

    Args:
        length: N.
        readers: that draw.
        part: its number there.
        name: of the part, for errors.
        num_classes, task: which say what targets may hold (``labels.py``).

    Attributes:
        form: of every item, in words.
        first: the items tried, stacked: inputs and targets.
        keyed: an item hangs on its key alone.

    Raises:
        DataError: no item, or items of several forms.
    """

    def __init__(self, length: int, readers: ItemReaders, part: int, name: str, num_classes: int, task: str) -> None:
        if length < 1:
            raise DataError(f"data: the {name} Dataset has no item: must have at least one; give another")
        self.length, self.name = length, name
        self._readers, self._part, self._num_classes, self._task = readers, part, num_classes, task
        spread = shuffled(key(_CHOICE), np.arange(min(_SPREAD, length)), length)
        numbers = np.unique(np.concatenate([np.arange(min(_FIRST, length)), spread]))
        drawn = readers.twice(part, _requests(key(_STILL), numbers))
        self.form = form(drawn[0][0])
        for number, (item, _) in zip(numbers.tolist(), drawn, strict=True):
            check_form(form(item), self.form, name, number)
        self.keyed = all(list(blocks(item)) == list(blocks(again)) for item, again in drawn)
        self.first: Pairs = laid_end_to_end([stacked([item for item, _ in drawn])])

    def give_up(self) -> None:
        """End what draws."""
        self._readers.give_up()

    def drawn(self, requests: list[Request]) -> Pairs:
        """Inputs and targets of these items.

        Raises:
            DataError: an item that cannot be had, of another form, or of a class beyond C.
        """
        inputs, targets = laid_end_to_end(self._readers.stack(self._part, requests, self.form))
        check_labels(targets, self._task, self._num_classes, self.name, lambda place: requests[place][0])
        return inputs, targets


class MapExamples(Examples):
    """Some items of a set, or all.

    Args:
        items: the set.
        selected: numbers of its items; None for all.
    """

    steps_ahead = 3

    def __init__(self, items: ItemSet, selected: Indices | None = None) -> None:
        self._items, self._selected = items, selected
        first = TensorExamples(*items.first)
        self.shape, self.raw = first.shape, first.raw

    @property
    def keyed(self) -> bool:
        """Its items hang on their keys alone, as far as was tried."""
        return self._items.keyed

    @property
    def form(self) -> str:
        """Of every item, in words."""
        return self._items.form

    @property
    def warning(self) -> str | None:
        """What a reader of the run's figures should know."""
        if self.keyed:
            return None
        return (
            f"warning: a {self._items.name} item drawn twice under one key is not the same: it draws from something "
            f"beside the generators of random, numpy and torch, so no run with it can be repeated"
        )

    def __len__(self) -> int:
        return self._items.length if self._selected is None else len(self._selected)

    def give_up(self) -> None:
        """End the processes that draw: an item may hang."""
        self._items.give_up()

    def _numbers(self, examples: Indices) -> Indices:
        return examples if self._selected is None else self._selected[examples]

    def _still(self, examples: Indices) -> Pairs:
        return self._items.drawn(_requests(key(_STILL), self._numbers(examples)))

    def part(self, part: slice) -> Pairs:
        """Consecutive items, under keys that no seed and no epoch changes."""
        return self._still(np.arange(*part.indices(len(self))))

    def augmented(self, seed: int, augmentation: Augmentation) -> Callable[[Indices, Indices], Pairs]:
        """Items under key(seed, epoch, item): the Dataset augments them itself."""

        def minibatch(epochs: Indices, examples: Indices) -> Pairs:
            numbers = self._numbers(examples)
            seeds = np.empty(len(numbers), np.uint64)
            for epoch in np.unique(epochs):
                inside = epochs == epoch
                seeds[inside] = bits(key(seed, int(epoch), _TRAINED), numbers[inside])
            return self._items.drawn(list(zip(numbers.tolist(), seeds.tolist(), strict=True)))

        return minibatch

    def select(self, examples: Indices) -> MapExamples:
        """These items alone."""
        return MapExamples(self._items, self._numbers(examples))

    def sample(self) -> TensorExamples:
        """Up to 1,024 items by one order that hangs on no seed, as they are without augmentation's epochs."""
        return TensorExamples(*self._still(self._chosen(_SAMPLE)))

    def _chosen(self, most: int) -> Indices:
        return shuffled(key(_CHOICE), np.arange(min(most, len(self))), len(self))

    @cached_property
    def _digests(self) -> dict[str, str]:
        if not self.keyed:
            return {"form": self.form}
        numbers = self._numbers(self._chosen(_FIRST + _SPREAD))
        inputs, targets = self._items.drawn(_requests(key(_STILL), numbers))
        selected = b"" if self._selected is None else self._selected.tobytes()
        pieces = TensorExamples(inputs, targets).digests()
        return {"form": self.form, "items": digest([selected, *(piece.encode() for piece in pieces.values())])}

    def digests(self) -> dict[str, str]:
        """Of their form, of which were selected, and of the bytes of eight: reading all would cost an epoch."""
        return self._digests


def _requests(key_: int, numbers: Indices) -> list[Request]:
    return list(zip(numbers.tolist(), bits(key_, numbers).tolist(), strict=True))
