"""What a command asks, as fields with range and words: its flags come from them (``cli/study/flags.py``).

A field's flag is ``--`` and its name. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo


def flag(
    words: str,
    value: str | None = None,
    *,
    default: Any = ...,
    repeated: str | None = None,
    bare: str | None = None,
    **limits: Any,
) -> Any:
    """A field of a question.

    Args:
        words: for its help; where the default is None, with what stands in for it.
        value: how the help writes the value, such as ``KN`` or ``LIST``.
        default: none where it must be asked.
        repeated: the flag that adds one value at a time, where the field holds several.
        bare: the value of the flag alone, without one; None: it needs one.
        limits: pydantic's, such as ``ge=1``.
    """
    return Field(
        default, description=words, json_schema_extra={"value": value, "repeated": repeated, "bare": bare}, **limits
    )


def flag_name(name: str, field: FieldInfo) -> str:
    """The flag of a field."""
    repeated = _extra(field)["repeated"]
    return str(repeated) if repeated else f"--{name.replace('_', '-')}"


def value_words(field: FieldInfo) -> str | None:
    """How a field's help writes its value."""
    words: str | None = _extra(field)["value"]
    return words


def is_repeated(field: FieldInfo) -> bool:
    """Whether a field's flag adds one value at a time."""
    return bool(_extra(field)["repeated"])


def bare_value(field: FieldInfo) -> str | None:
    """The value of a field's flag that is given without one; None where it needs one."""
    words: str | None = _extra(field)["bare"]
    return words


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    return {"value": None, "repeated": None, "bare": None, **(extra if isinstance(extra, dict) else {})}


def read_by(parse: Callable[[str], object]) -> BeforeValidator:
    """A field's words by this function; what is read already stays, a list of JSON as a tuple."""
    return BeforeValidator(
        lambda value: parse(value) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    )
