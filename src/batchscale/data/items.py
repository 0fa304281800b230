"""Items of somebody's Dataset as columns: pairs of tensors, arrays, pictures and numbers, laid together row by row.

An item is a pair (input, target), each of any structure of tuples and mappings. A tensor or an array stays as it is; a
whole number becomes int64, a float float32, a PIL picture uint8 (C, H, W), as a target (H, W); anything else, such as a
word, stands in a list. All items have one form: the same structure, types and shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from batchscale.errors import DataError
from batchscale.structure import mapped_columns

_NUMBERS = "biufc"  # numpy's kinds
_PICTURES = ("L", "RGB")


def plain(item: Any) -> tuple[Any, Any]:
    """An item as a pair of structures of arrays, which other processes can be sent.

    Raises:
        DataError: it is no pair, or a picture of a mode that has several readings.
    """
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise DataError(f"is {_named(item)}: must be a pair (input, target); give one of __getitem__")
    return _plain(item[0], is_input=True), _plain(item[1], is_input=False)


def _named(item: Any) -> str:
    length = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
    return f"a {type(item).__name__}{length}"


def _plain(value: Any, is_input: bool) -> Any:
    if isinstance(value, torch.Tensor):
        value = _array(value)
    if isinstance(value, Mapping):
        return {name: _plain(part, is_input) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [_plain(part, is_input) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, Image.Image):
        return _pixels(value, is_input)
    if isinstance(value, np.ndarray) and value.dtype.kind not in _NUMBERS:
        raise DataError(
            f"holds an array of type {value.dtype}: must be of numbers; convert it, or give a list of words"
        )
    if isinstance(value, (bool, np.ndarray, np.generic)) and np.asarray(value).dtype.kind in _NUMBERS:
        array = np.asarray(value)
        # A label of any whole type: losses take int64.
        return array.astype(np.int64) if not is_input and not array.ndim and array.dtype.kind in "iu" else array
    if isinstance(value, (int, float)):
        try:
            return np.asarray(value, np.int64 if isinstance(value, int) else np.float32)
        except OverflowError:
            raise DataError(f"holds the number {value}: must have 64 bits at most; give a float") from None
    return value


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    try:
        tensor = tensor.resolve_conj().resolve_neg()
        array: npt.NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (TypeError, RuntimeError):
        kind = f"{str(tensor.layout).removeprefix('torch.')} {str(tensor.dtype).removeprefix('torch.')}"
        raise DataError(f"holds a {kind} tensor, which no array can: give a dense one, such as of float32") from None
    return array


def _pixels(picture: Image.Image, is_input: bool) -> npt.NDArray[Any]:
    if is_input and picture.mode not in _PICTURES:
        raise DataError(
            f"is a picture of mode {picture.mode}: must be grey (L) or RGB; convert it in __getitem__, or give a tensor"
        )
    array = np.asarray(picture)
    if array.ndim == 2:
        return array[None] if is_input else array
    return array.transpose(2, 0, 1)


def form(part: Any) -> str:
    """Structure, types and shapes of an item, in words: "(uint8 (3, 32, 32), int64 ())"."""
    if isinstance(part, np.ndarray):
        return f"{part.dtype} {part.shape}"
    if isinstance(part, Mapping):
        return "{" + ", ".join(f"{name}: {form(each)}" for name, each in part.items()) + "}"
    if isinstance(part, tuple):
        return "(" + ", ".join(form(each) for each in part) + ")"
    return type(part).__name__


def blocks(part: Any) -> Iterator[bytes]:
    """The bytes of an item, or of stacked ones, in order."""
    if isinstance(part, np.ndarray):
        yield part.tobytes()
    elif isinstance(part, Mapping):
        for each in part.values():
            yield from blocks(each)
    elif isinstance(part, tuple):
        for each in part:
            yield from blocks(each)
    else:
        yield repr(part).encode()


def stacked(parts: Sequence[Any]) -> Any:
    """Columns of items of one form: an array becomes a row of its column, what is none a member of a list."""
    return _joined(parts, np.stack, list)


def laid_end_to_end(chunks: Sequence[Any]) -> Any:
    """Columns of tensors, of stacked chunks of items."""

    def rows(arrays: Sequence[npt.NDArray[Any]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays) if len(arrays) > 1 else np.ascontiguousarray(arrays[0]))

    return _joined(chunks, rows, lambda lists: [member for part in lists for member in part])


def _joined(parts: Sequence[Any], of_arrays: Any, of_others: Any) -> Any:
    first = parts[0]
    if isinstance(first, np.ndarray):
        return of_arrays(parts)
    if isinstance(first, Mapping):
        return {name: _joined([part[name] for part in parts], of_arrays, of_others) for name in first}
    if isinstance(first, tuple):
        joined = [_joined(column, of_arrays, of_others) for column in zip(*parts, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    return of_others(parts)


def laid_in_memory(items: Sequence[Any], name: str) -> tuple[Any, Any]:
    """Inputs and targets of items that all lie in memory.

    Args:
        items: pairs of one form.
        name: of the part, for errors.

    Raises:
        DataError: an item that is no pair, or of another form than the first.
    """
    pairs, first_form = [], ""
    for number, item in enumerate(items):
        try:
            pairs.append(plain(item))
        except DataError as error:
            raise DataError(f"data: {name} item {number} {error}") from None
        first_form = first_form or form(pairs[0])
        check_form(form(pairs[-1]), first_form, name, number)
    inputs, targets = laid_end_to_end([stacked(pairs)])
    return inputs, targets


def check_form(item_form: str, first_form: str, name: str, number: int) -> None:
    """Raise where an item's form is not the first one's.

    Raises:
        DataError: which item, and both forms.
    """
    if item_form != first_form:
        raise DataError(
            f"data: {name} item {number} is {item_form}, and the first is {first_form}: all must have one form, so "
            f"that they can be laid together; crop, pad or resize in __getitem__"
        )


def as_tensors(structure: Any) -> Any:
    """Columns with tensors in the place of arrays; a whole number an example becomes int64."""

    def tensor(column: Any) -> Any:
        whole = isinstance(column, torch.Tensor) and column.ndim == 1 and not column.is_floating_point()
        return column.long() if whole and column.dtype != torch.bool else column

    return mapped_columns(tensor, _arrays_as_tensors(structure))


def _arrays_as_tensors(structure: Any) -> Any:
    if isinstance(structure, np.ndarray) and structure.dtype != object:
        return torch.from_numpy(np.ascontiguousarray(structure))
    if isinstance(structure, Mapping):
        return {name: _arrays_as_tensors(part) for name, part in structure.items()}
    if isinstance(structure, tuple):
        parts = [_arrays_as_tensors(part) for part in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    return structure
