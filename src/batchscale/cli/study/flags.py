"""Flags from the fields of a question, and a question from flags.

A whole number, a number and one of several names are judged while the command line is read; other words by the
question's own validators, whose errors name the flag.
"""

from __future__ import annotations

import argparse
import math
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import annotated_types
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from batchscale.asking import bare_value, flag_name, is_repeated, value_words
from batchscale.errors import UsageError
from batchscale.recipe.base import Entry

Asking = TypeVar("Asking", bound=Entry)
_LARGEST = 1e9  # of a number without a bound above


def add_flags(parser: argparse.ArgumentParser, question: type[Entry]) -> None:
    """One flag a field, with its range, its default and its words; one that is not given leaves no option.

    Args:
        parser: of the command.
        question: of the study, or the measure.
    """
    for name, field in question.model_fields.items():
        parser.add_argument(
            flag_name(name, field),
            dest=name,
            required=field.is_required(),
            default=argparse.SUPPRESS,
            help=_help(field),
            **_reading(field),
        )


def question_from(options: argparse.Namespace, question: type[Asking]) -> Asking:
    """The question of a command line.

    Args:
        options: of a parser with ``add_flags``.
        question: of the study, or the measure.

    Raises:
        UsageError: one line that names the flag.
    """
    words = {name: getattr(options, name) for name in question.model_fields if hasattr(options, name)}
    try:
        return question.model_validate(words)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        setting = f"{flag_name(name, question.model_fields[name])}={words.get(name)}" if name else "question"
        raise UsageError(f"{setting}: {first['msg']}; see --help") from None


def _help(field: FieldInfo) -> str:
    shows_default = isinstance(field.default, (int, float, str)) and not isinstance(field.default, bool)
    return f"{field.description}{f' (default {field.default})' if shows_default else ''}".replace("%", "%%")


def _reading(field: FieldInfo) -> dict[str, Any]:
    """How argparse reads a field's words."""
    kind, metavar = _kind(field.annotation), value_words(field)
    if typing.get_origin(kind) is Literal:
        return {"choices": typing.get_args(kind)}
    if is_repeated(field):
        return {"action": "append", "metavar": metavar}
    if kind is bool:
        return {"action": "store_true"}
    if kind is int:
        return {"type": _whole_number(field), "metavar": metavar}
    if kind is float:
        return {"type": _number(field), "metavar": metavar}
    bare = bare_value(field)
    return {"metavar": metavar} if bare is None else {"metavar": metavar, "nargs": "?", "const": bare}


def _kind(annotation: Any) -> Any:
    """A field's type without ``| None`` and without what is annotated."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (annotation,) = (kind for kind in typing.get_args(annotation) if kind is not type(None))
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _bounds(field: FieldInfo) -> tuple[float, float, str]:
    """(lowest, highest, the rule in words)."""
    lowest, highest, words = -_LARGEST, _LARGEST, []
    for limit in field.metadata:
        if isinstance(limit, annotated_types.Ge):
            lowest, rule = float(typing.cast(float, limit.ge)), f"of at least {limit.ge}"
        elif isinstance(limit, annotated_types.Gt):
            lowest, rule = math.nextafter(float(typing.cast(float, limit.gt)), math.inf), f"above {limit.gt}"
        elif isinstance(limit, annotated_types.Le):
            highest, rule = float(typing.cast(float, limit.le)), f"at most {limit.le}"
        else:
            continue
        words.append(rule)
    return lowest, highest, " and ".join(words)


def _whole_number(field: FieldInfo) -> Callable[[str], int]:
    lowest, highest, rule = _bounds(field)

    def read(text: str) -> int:
        if not re.fullmatch("-?[0-9]{1,18}", text) or not lowest <= int(text) <= max(highest, 10**18):
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number {rule}".rstrip())
        return int(text)

    return read


def _number(field: FieldInfo) -> Callable[[str], float]:
    lowest, highest, rule = _bounds(field)

    def read(text: str) -> float:
        try:
            value = float(text) if text.isascii() else math.nan
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} must be a number {rule}".rstrip())
        return value

    return read
