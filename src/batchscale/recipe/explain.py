"""What is wrong with a recipe's entries, in one line: the entry, its value, the rule and the way out."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from batchscale.errors import RecipeError
from batchscale.recipe.problems import first_problem, refused_value
from batchscale.recipe.schema import Recipe
from batchscale.recipe.union import UNKNOWN_MEMBER, fields_of
from batchscale.words import nearest


class UnknownMember(RecipeError):
    """A name that no member of its family has; perhaps one of a plugin that this command was not given.

    Args:
        line: the whole message, for whoever has typed the name.
        sentence: the same without the way out: the entry, the name and the members that there are.
    """

    def __init__(self, line: str, sentence: str = "") -> None:
        super().__init__(line)  # alone in args: errors are sent between processes
        self.sentence = sentence


def _group_of(annotation: Any) -> type[BaseModel] | None:
    """The group of entries that stands at a field, of a field that may be null, too; None where none does."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] if is_union else [annotation]
    is_group = len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel)
    return kinds[0] if is_group else None


def _dotted(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """The dotted names of all entries below a group."""
    for name, field in fields_of(model).items():
        group = _group_of(field.annotation)
        if group is not None:
            yield from _dotted(group, f"{prefix}{name}.")
        else:
            yield prefix + name


def field_of(key: str) -> FieldInfo | None:
    """The entry of this dotted name; None where there is no such entry."""
    group: type[BaseModel] | None = Recipe
    field = None
    for name in key.split("."):
        if group is None or name not in fields_of(group):
            return None
        field = fields_of(group)[name]
        group = _group_of(field.annotation)
    return field


def optional_group(key: str) -> type[BaseModel] | None:
    """The group of this dotted name, where a recipe may do without it: it is null there."""
    field = field_of(key)
    return _group_of(field.annotation) if field is not None and field.default is None else None


def unknown_entry(key: str) -> RecipeError:
    """That a recipe has no such entry, with the nearest that it has."""
    parent = key.rpartition(".")[0]
    if (group := optional_group(parent)) is not None:
        return RecipeError(f"recipe entry {key!r}: unknown; {_content_of(parent, group)}")
    known = list(_dotted(Recipe))
    last = key.rsplit(".", 1)[-1]
    namesake = next((entry for entry in known if entry.rsplit(".", 1)[-1] == last), "")
    meant = nearest(key, known, 0.6) or namesake or nearest(key, known)
    return RecipeError(f"recipe entry {key!r}: unknown; the nearest known entry is {meant}")


def not_a_group(key: str) -> RecipeError:
    """That a single value was given for a group of entries."""
    if (group := optional_group(key)) is not None:
        return RecipeError(f"recipe entry {key!r}: is a group of entries; {_content_of(key, group)}")
    below = next((entry for entry in _dotted(Recipe) if entry.startswith(key + ".")), key)
    return RecipeError(f"recipe entry {key!r}: is a group of entries; set one of them, such as {below}")


def _content_of(key: str, group: type[BaseModel]) -> str:
    """What an optional group takes and needs, with an example of its own."""
    needed = [name for name, field in fields_of(group).items() if field.is_required()]
    needs = f" and needs {', '.join(needed)}" if needed else ""
    example = f"; write for example {key}={group.example}" if hasattr(group, "example") else ""
    return f"{key} takes {', '.join(fields_of(group))}{needs}{example}"


def _named(place: tuple[int | str, ...]) -> tuple[str, str]:
    """(the entry or group that an override can set, the place below it such as "[0].epoch") of a problem.

    Pydantic's names of a union's members stand in the place, too; they are no entries, and left out.
    """
    known = set(_dotted(Recipe))
    key = ""
    for depth, part in enumerate(place):
        if key in known:
            return key, _below(place[depth:])
        key = f"{key}.{part}" if key else str(part)
    return key, ""


def _below(place: tuple[int | str, ...]) -> str:
    """A place in a list, as far as it is one: an index, and the field after it."""
    words = ""
    for part in place:
        if isinstance(part, str) and not words.endswith("]"):
            break
        words += f"[{part}]" if isinstance(part, int) else f".{part}"
    return words


def explained(error: ValidationError) -> RecipeError:
    """The first problem of a recipe in one line; a misspelt name before the entry that is missing because of it."""
    problems = error.errors(include_url=False)
    first = first_problem(problems)
    entry, below = _named(first["loc"])
    key = entry + below
    if first["type"] == "extra_forbidden":
        return unknown_entry(key)
    if first["type"] == "missing":
        return _missing(entry, key)
    if first["type"] == "model_type" and not below:
        return not_a_group(key)
    rules = [p["msg"] for p in problems if _named(p["loc"]) == (entry, below)]
    rule = " or ".join(dict.fromkeys(r.removeprefix("Value error, ") for r in rules))
    if first["type"] == "value_error":
        return RecipeError(f"recipe entry {key}: {rule}" if key else f"recipe: {rule}")
    if first["type"] == "tuple_type":
        rule = f"must be a list{_items(entry)}"
    sentence = f"recipe entry {refused_value(key, first['input'], rule)}"
    line = f"{sentence}; set it with {entry}=VALUE"
    return UnknownMember(line, sentence) if first["type"] == UNKNOWN_MEMBER else RecipeError(line)


def _missing(entry: str, key: str) -> RecipeError:
    parent = entry.rpartition(".")[0]
    group = optional_group(parent) if entry == key else None
    if group is not None:
        return RecipeError(f"recipe entry {key!r}: missing; {_content_of(parent, group)}")
    return RecipeError(f"recipe entry {key!r}: missing; a recipe needs it, for example {entry}=...")


def _items(entry: str) -> str:
    """What a list of this entry holds, where that is groups of entries: `` of {epoch, momentum}``."""
    field = field_of(entry)
    item = next(iter(get_args(field.annotation)), None) if field else None
    if isinstance(item, type) and issubclass(item, BaseModel):
        return f" of {{{', '.join(item.model_fields)}}}"
    return ""
