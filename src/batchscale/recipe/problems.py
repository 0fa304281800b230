"""What pydantic finds wrong, in the words of the house; for recipes, and for other files that people write."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any


def first_problem(problems: Sequence[Any]) -> Any:
    """The first; a misspelt name before the entry that is missing because of it.

    Args:
        problems: of ``ValidationError.errors``, at least one.
    """
    first = problems[0]
    if first["type"] != "missing":
        return first
    beside = [p for p in problems if p["type"] == "extra_forbidden" and p["loc"][:-1] == first["loc"][:-1]]
    return [*beside, first][0]


def refused_value(key: str, value: Any, rule: str) -> str:
    """``key=value: rule``, long values cut.

    Args:
        key: dotted name of the entry.
        value: as given.
        rule: that it breaks, as pydantic says it.
    """
    rule = rule.removeprefix("Value error, ")
    return f"{key}={reprlib.repr(value)}: {rule[:1].lower() + rule[1:]}"
