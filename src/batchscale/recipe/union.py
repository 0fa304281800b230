"""A family of entries: one class a member, told apart by one of its entries; and entries that are a member's name.

Pydantic's own unions are closed when the schema is made. These are looked up when a recipe is read, so that plugins may
add to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError, ValidatorFunctionWrapHandler
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from batchscale.errors import UsageError
from batchscale.members import Members, loading
from batchscale.recipe.base import Entry

UNKNOWN_MEMBER = "unknown_member"
"""The type of pydantic's error of a name that is none of a family."""

E = TypeVar("E", bound=Entry)
_UNIONS: dict[type[BaseModel], EntryUnion[Any]] = {}
"""What all members of a family take -> the family."""


def _listed(names: Iterable[str]) -> str:
    """``'a', 'b' or 'c'``."""
    *first, last = [repr(name) for name in names]
    return f"{', '.join(first)} or {last}" if first else last


def member_of(table: Members[Any], pattern: re.Pattern[str] | None = None, rule: str = "") -> BeforeValidator:
    """That an entry is a name of a family, or a word that stands in its place.

    Args:
        table: of the family.
        pattern: of further names, which another one checks.
        rule: that pattern in words.
    """

    def check(name: Any) -> Any:
        if isinstance(name, str) and (name in table.words() or (pattern and pattern.fullmatch(name))):
            return name
        raise unknown(table.words(), rule + loading.way_to_load())

    return BeforeValidator(check)


def unknown(names: Iterable[str], rule: str = "") -> PydanticCustomError:
    """The error of a name that is none of these.

    Args:
        names: known.
        rule: what else may stand there, in words.
    """
    return PydanticCustomError(UNKNOWN_MEMBER, "Input should be {expected}", {"expected": f"{_listed(names)}{rule}"})


def fields_of(group: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """The entries of a group; of a family those of all its members."""
    return _UNIONS[group].fields() if group in _UNIONS else group.model_fields


class EntryUnion(Generic[E]):
    """One entry class a member. As a validator it reads a mapping as the class of the member that it names.

    Args:
        setting: the recipe's entry that it stands at.
        base: what all members take.
        tag: the entry that names the member.
        members: the classes, the default one first.
        rule: who else may be named, in words, for errors.
    """

    def __init__(
        self, setting: str, base: type[E], tag: str, members: Iterable[type[E]], rule: Callable[[], str] = str
    ) -> None:
        self.setting, self.base, self.tag, self._rule = setting, base, tag, rule
        self._members = {str(member.model_fields[tag].default): member for member in members}
        _UNIONS[base] = self

    @property
    def members(self) -> Mapping[str, type[E]]:
        """Name -> entry class, those of all plugins among them."""
        loading.load()
        return self._members

    def check(self, name: str, member: type[E]) -> None:
        """Raise where a class can be no member of this name.

        Raises:
            UsageError: it is no entry class of this family, or is of another name.
        """
        if not (isinstance(member, type) and issubclass(member, self.base)):
            raise UsageError(f"{self.setting}.{self.tag}={name}: its entry must be a class of {self.base.__name__}")
        if member.model_fields[self.tag].default != name:
            raise UsageError(
                f"{self.setting}.{self.tag}={name}: its entry says {member.model_fields[self.tag].default!r}; "
                f"give its {self.tag} this name as the only value and default"
            )

    def add(self, name: str, member: type[E]) -> None:
        """A further member, checked before."""
        self._members[name] = member

    def options_of(self, name: str) -> tuple[str, ...]:
        """What a member takes beside that which all take."""
        return tuple(option for option in self.members[name].model_fields if option not in self.base.model_fields)

    def fields(self) -> dict[str, FieldInfo]:
        """The entries of all members, those that all take first."""
        fields = dict(self.base.model_fields)
        for member in self.members.values():
            fields |= {name: field for name, field in member.model_fields.items() if name not in fields}
        return fields

    def __call__(self, value: Any, handler: ValidatorFunctionWrapHandler) -> E:
        """The entry of the member that a mapping names.

        Raises:
            ValueError: an option of another member.
        """
        if not isinstance(value, Mapping):
            entry: E = handler(value)
            return entry
        name = value.get(self.tag, next(iter(self._members)))
        if not isinstance(name, str) or name not in self.members:
            error = unknown(self.members, self._rule())
            raise ValidationError.from_exception_data(
                self.setting, [{"type": error, "loc": (self.tag,), "input": name}]
            )
        self._check_options(name, value)
        return self.members[name].model_validate(value)

    def _check_options(self, name: str, content: Mapping[str, Any]) -> None:
        options = self.options_of(name)
        strangers = self.fields().keys() - {*self.base.model_fields, *options}
        for option in sorted(strangers & content.keys()):
            written = option if isinstance(content[option], list | tuple) else f"{option}={content[option]}"
            place = name if self.tag == "name" else f"{self.tag}: {name}"
            raise ValueError(
                f"{written} has no place in {place}, which takes {', '.join(options) or 'no options'}; "
                f"leave it out, or give the whole entry, such as {self.setting}={{{self.tag}: {name}}}"
            )
