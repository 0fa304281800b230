"""Inputs and targets of any structure: tensors whose first axis counts examples, in tuples, lists and mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


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
    if isinstance(functions, (tuple, list)):
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


def num_examples(structure: Any) -> int:
    """The length of the first axis: of a list the number of its members (detection: one mapping an example)."""
    if isinstance(structure, list):
        return len(structure)
    return len(next(tensors(structure)))


def part(structure: Any, examples: slice) -> Any:
    """These examples of a structure, as views where it holds tensors."""
    if isinstance(structure, list):  # one member an example
        return structure[examples]
    return mapped(lambda tensor: tensor[examples], structure)
