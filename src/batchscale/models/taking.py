"""What a network takes, said by its builder, and the ranges of options that several networks have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from batchscale.errors import RecipeError

B = TypeVar("B", bound=Callable[..., Any])

IMAGES, VOLUMES, TOKENS = "images (C, H, W)", "volumes (C, D, H, W)", "sequences of tokens (T,)"
AXES = {IMAGES: 3, VOLUMES: 4, TOKENS: 1}
"""What a network may take -> the axes of one example of it."""


def takes_tokens(builder: B) -> B:
    """Say of a builder that its network takes tokens int64 (m, T)."""
    builder.takes = TOKENS  # type: ignore[attr-defined]
    return builder


def takes_volumes(builder: B) -> B:
    """Say of a builder that its network takes volumes (m, C, D, H, W)."""
    builder.takes = VOLUMES  # type: ignore[attr-defined]
    return builder


def inputs_of(builder: object) -> str:
    """What the network of a builder takes: images, where it says nothing."""
    return str(getattr(builder, "takes", IMAGES))


def check_least(**options: int) -> None:
    """Raise unless options are 1 or more.

    Raises:
        RecipeError: names the first that is not.
    """
    for name, value in options.items():
        if value < 1:
            raise RecipeError(f"model.options.{name}={value}: must be 1 or more; raise it")


def check_dropout(dropout: float) -> None:
    """Raise unless it is a probability below 1.

    Raises:
        RecipeError: says so.
    """
    if not 0 <= dropout < 1:
        raise RecipeError(f"model.options.dropout={dropout:g}: must be at least 0 and below 1; use 0.1, for example")
