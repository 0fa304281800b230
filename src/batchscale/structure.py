"""Inputs and targets of any structure: columns in tuples and mappings, each with a row for every example.

A column is a tensor whose first axis counts examples, or a list that has one member an example (detection: its boxes),
wherever it stands in the structure. Several tensors are a tuple or a mapping, never a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

IGNORED = 255
"""In a mask, or outside of it: no class; such a pixel counts in no sum."""


def mapped(function: Callable[[torch.Tensor], Any], structure: Any) -> Any:
    """The same structure with ``function`` of every tensor in its place; what is no tensor stays as it is."""
    if isinstance(structure, torch.Tensor):
        return function(structure)
    if isinstance(structure, Mapping):
        return {name: mapped(function, part) for name, part in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):  # a named tuple takes its parts one by one
        return type(structure)(*(mapped(function, part) for part in structure))
    if isinstance(structure, (tuple, list)):
        return type(structure)(mapped(function, part) for part in structure)
    return structure


def called(functions: Any, *arguments: Any) -> Any:
    """The same structure with what each of its functions gives for these arguments."""
    if isinstance(functions, Mapping):
        return {name: called(part, *arguments) for name, part in functions.items()}
    if isinstance(functions, tuple):
        parts = [called(part, *arguments) for part in functions]
        return type(functions)(*parts) if hasattr(functions, "_fields") else type(functions)(parts)
    return functions(*arguments) if callable(functions) else functions


def tensors(structure: Any) -> Iterator[torch.Tensor]:
    """Every tensor of a structure, in its order."""
    if isinstance(structure, torch.Tensor):
        yield structure
    elif isinstance(structure, Mapping):
        for part in structure.values():
            yield from tensors(part)
    elif isinstance(structure, (tuple, list)):
        for part in structure:
            yield from tensors(part)


def columns(structure: Any) -> Iterator[torch.Tensor | list[Any]]:
    """Every column of a structure, in its order."""
    if isinstance(structure, (torch.Tensor, list)):
        yield structure
    elif isinstance(structure, (Mapping, tuple)):
        for part in structure.values() if isinstance(structure, Mapping) else structure:
            yield from columns(part)


def tensor_columns(structure: Any) -> Iterator[torch.Tensor]:
    """The columns that are tensors; of lists nothing."""
    return (column for column in columns(structure) if isinstance(column, torch.Tensor))


def mapped_columns(function: Callable[[Any], Any], structure: Any) -> Any:
    """The same structure with ``function`` of every column in its place."""
    if isinstance(structure, list):
        return function(structure)
    if isinstance(structure, Mapping):
        return {name: mapped_columns(function, part) for name, part in structure.items()}
    if isinstance(structure, tuple):
        parts = [mapped_columns(function, part) for part in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else type(structure)(parts)
    return mapped(function, structure)


def num_examples(structure: Any) -> int:
    """The number of rows of the first column."""
    return len(next(columns(structure)))


def part(structure: Any, examples: slice) -> Any:
    """These examples of a structure, as views where it holds tensors."""
    return mapped_columns(lambda column: column[examples], structure)


def rows(column: torch.Tensor | list[Any], index: torch.Tensor) -> torch.Tensor | list[Any]:
    """Copies of these rows of a column, (m,) numbers; of a list the members themselves."""
    if isinstance(column, list):
        return [column[number] for number in index.tolist()]
    return column.index_select(0, index)


def repeated(structure: Any, times: int) -> Any:
    """The examples of a structure, so many times over."""

    def column_repeated(column: torch.Tensor | list[Any]) -> torch.Tensor | list[Any]:
        return column * times if isinstance(column, list) else column.repeat(times, *[1] * (column.ndim - 1))

    return mapped_columns(column_repeated, structure)
