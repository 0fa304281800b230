"""What is wrong with a cluster's file, in one line: the file, the entry, its value, the rule and the way out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from batchscale.cost.ranges import OF_CLUSTER
from batchscale.errors import DataError, RecipeError
from batchscale.recipe.load import parse_yaml
from batchscale.recipe.problems import first_problem, refused_value
from batchscale.words import nearest, shown

_SOURCED = 'write for example {value: 50, source: "where the number is from"}'
_OF_SOURCED = ("value", "source")
_SHORTEST_SOURCE = 8


def parsed(text: str, name: str) -> Any:
    """The document of a file. JSON, which is YAML, too, is read a hundred times faster by itself.

    Raises:
        DataError: it is none, or has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unrepeated)
    except (json.JSONDecodeError, RecursionError):
        pass
    except KeyError as error:
        raise DataError(f"{shown(name)}: the key {error} stands twice in one mapping; keep one") from None
    try:
        return parse_yaml(text, shown(name))
    except RecipeError as error:
        raise DataError(f"{error}; correct it") from None


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise KeyError(key)
        content[key] = value
    return content


def explained(error: ValidationError, name: str, entries: Mapping[str, Iterable[str]]) -> DataError:
    """The first problem of a cluster's file.

    Args:
        error: of its schema.
        name: of the file.
        entries: names of a file's, below "", and of an item's of each of its lists.
    """
    problems = error.errors(include_url=False)
    first = next(filter(_is_rest_of_source, problems), first_problem(problems))
    return DataError(f"{shown(name)}: {shown(_sentence(first, _key(first['loc']), entries))}")


def _is_rest_of_source(problem: Any) -> bool:
    """Whether it is what stands after a comma: {value: 50, source: measured, by hand}."""
    return problem["type"] == "extra_forbidden" and len(problem["loc"]) > 1 and problem["input"] is None


def _key(place: Iterable[int | str]) -> str:
    """``rates[0].value``."""
    words = ""
    for part in place:
        if part != "[key]":
            words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else str(part)
    return words


def _sentence(problem: Any, key: str, entries: Mapping[str, Iterable[str]]) -> str:
    kind, value, rule = problem["type"], problem["input"], problem["msg"]
    if kind == "missing":
        way = _SOURCED if key.endswith(_OF_SOURCED) else f"write {key}: ..., a cluster's file needs it"
        return f"{key}: missing; {way}"
    if kind == "extra_forbidden":
        if _is_rest_of_source(problem):
            return f'{key}: unknown; put a source that holds a comma into quotes: {{value: 50, source: "a, b"}}'
        return _unknown(key, entries)
    if not key and kind == "value_error":
        return str(rule).removeprefix("Value error, ")
    if not key:
        what = "is empty" if value is None else f"is {type(value).__name__}, and no mapping"
        return f"the document {what}: it must have entries, device and devices_per_host at the least"
    if kind == "model_type":
        return f"{refused_value(key, value, 'must be a mapping of value (a number above 0) and source')}; {_SOURCED}"
    if kind == "string_too_short":
        rule = f"must have at least {_SHORTEST_SOURCE} characters, for it says where the number is from; name it"
        return refused_value(key, value, rule)
    if kind in {"float_type", "int_type"} and isinstance(value, str):
        return f"{refused_value(key, value, rule)}, and not a text; write it without quotes and unit, such as 50"
    return f"{refused_value(key, value, rule)}; correct it"


def _unknown(key: str, entries: Mapping[str, Iterable[str]]) -> str:
    parent, _, last = key.rpartition(".")
    known = entries.get(parent.partition("[")[0], _OF_SOURCED)
    return f"{key}: unknown; the nearest known entry is {parent + '.' if parent else ''}{nearest(last, known)}"


def check_range(name: str, key: str, value: float, of: str) -> None:
    """Raise for a number that no cluster has.

    Args:
        name: of the file.
        key: of the entry, for the line.
        value: of it.
        of: name of the range.

    Raises:
        DataError: it lies outside.
    """
    if not OF_CLUSTER[of].holds(value):
        raise DataError(f"{shown(name)}: {key}={value:g}: {OF_CLUSTER[of].rule}; correct it, or its unit")
