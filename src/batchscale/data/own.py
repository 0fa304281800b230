"""Data handed in from Python, in whatever form, as a run uses them.

| handed in | is |
|---|---|
| a ``batchscale.Dataset``, a ``Splits``, or what has ``splits()`` | itself |
| a pair (training, test), each of them one of: | |
| a tuple (inputs, targets) of tensors or arrays, of any structure | columns in memory |
| torch's ``TensorDataset`` of two tensors | the same |
| a list of items (input, target) | laid together, in memory |
| any other object with ``__getitem__`` and ``__len__`` | items drawn as they are used (``map_style.py``) |
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import torch
from torch.utils.data import IterableDataset, TensorDataset

from batchscale.data.examples import Examples, Splits, TensorExamples
from batchscale.data.item_readers import ItemReaders
from batchscale.data.items import as_tensors, laid_in_memory
from batchscale.data.labels import check_labels
from batchscale.data.map_style import ItemSet, MapExamples
from batchscale.errors import DataError
from batchscale.structure import columns

_NAMES = ("training", "test")


def own_splits(data: Any, num_classes: int | None, processes: int, task: str = "classification") -> Splits:
    """One's own data as a run uses them.

    Args:
        data: as the table above has it.
        num_classes: C, where it is said; else from the Dataset's ``classes``, or from labels in memory; 0 unknown.
        processes: that draw items.
        task: the name of what learns from them.

    Raises:
        DataError: data of another form, or a label that is no class.
    """
    if isinstance(data, Splits) or hasattr(data, "splits"):
        splits: Splits = data if isinstance(data, Splits) else data.splits()
        if num_classes not in (None, splits.num_classes):
            raise DataError(
                f"data.classes={num_classes}: the data handed in says that it has {splits.num_classes}; leave it out"
            )
        return splits
    if not isinstance(data, tuple) or len(data) != 2:
        raise DataError(
            f"data: is {_named(data)}: must be a batchscale.Dataset, or a pair (training, test) of map-style Datasets, "
            f"of tensors (inputs, targets), or of lists of items; make one of these (torch.utils.data.random_split "
            f"makes two Datasets of one), or, of any structure, a batchscale.data.examples.Splits"
        )
    ready = [_in_memory(part, name) for part, name in zip(data, _NAMES, strict=True)]
    parts: list[Examples | None] = [*ready]
    drawn = [number for number, part in enumerate(parts) if part is None]
    num_classes = num_classes or _classes(data, ready)
    for examples, name in zip(ready, _NAMES, strict=True):
        if examples is not None:
            check_labels(examples.targets, task, num_classes, name)
    if drawn:
        readers = ItemReaders([data[number] for number in drawn], [_NAMES[number] for number in drawn], processes)
        for place, number in enumerate(drawn):
            length, name = len(data[number]), _NAMES[number]
            parts[number] = MapExamples(ItemSet(length, readers, place, name, num_classes, task))
    train, test = parts
    assert train is not None
    assert test is not None
    if train.raw != test.raw:
        raise DataError(
            "data: training inputs are "
            + " and test inputs are ".join("uint8 images" if part.raw else "no uint8 images" for part in (train, test))
            + ": must be alike, as one normaliser acts on both; convert one"
        )
    return Splits("own", train, test, num_classes)


def _in_memory(part: Any, name: str) -> TensorExamples | None:
    """A part that lies in memory; None where its items are drawn as they are used.

    Raises:
        DataError: a part of another form.
    """
    if isinstance(part, tuple) and len(part) == 2:
        return _columns(as_tensors(part), name)
    if type(part) is TensorDataset and len(part.tensors) == 2:
        return _columns(as_tensors(part.tensors), name)
    if isinstance(part, list):
        if not part:
            raise DataError(f"data: the {name} list has no item: must have at least one; give another")
        return _columns(laid_in_memory(part, name), name)
    if isinstance(part, (IterableDataset, dict, str, tuple, list, torch.Tensor)) or not (
        hasattr(part, "__getitem__") and hasattr(part, "__len__")
    ):
        raise DataError(
            f"data: the {name} part is {_named(part)}: must be map-style, with __getitem__ and __len__, so that which "
            f"item stands where hangs on seed and epoch and not on who reads it; give such a Dataset, a list of items, "
            f"or a tuple (inputs, targets) of tensors"
        )
    return None


def _columns(pair: tuple[Any, Any], name: str) -> TensorExamples:
    scalars = [column for column in columns(pair) if isinstance(column, torch.Tensor) and not column.ndim]
    if scalars or next(columns(pair[0]), None) is None:
        raise DataError(
            f"data: the {name} part holds {'a number alone' if scalars else 'no inputs'}: must be tensors or arrays "
            f"whose first axis counts examples, (N, ...); give these"
        )
    examples = TensorExamples(*pair)
    if not len(examples):
        raise DataError(f"data: the {name} part has no example: must have at least one; give another")
    return examples


def _named(data: Any) -> str:
    return f"a {type(data).__name__}"


def _classes(data: tuple[Any, Any], parts: Sequence[TensorExamples | None]) -> int:
    """Classes, from the Dataset's ``classes`` or, in memory, the largest label; 0 where neither tells."""
    dataset = data[0]
    while hasattr(dataset, "dataset"):  # torch's Subset
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, int):
        return classes
    if isinstance(classes, Sized):
        return len(classes)
    labels = [part.targets for part in parts if part is not None]
    whole = [each for each in labels if isinstance(each, torch.Tensor) and each.dtype == torch.int64 and each.ndim == 1]
    return max(int(each.max()) for each in whole) + 1 if len(whole) == 2 else 0
