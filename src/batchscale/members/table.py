"""A family's table: name -> member, each imported when it is first asked for; plugins add to it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from batchscale.errors import RecipeError, UsageError
from batchscale.members import loading
from batchscale.words import did_you_mean

T = TypeVar("T")
_PACKAGE = "batchscale"


def resolved(home: Any) -> Any:
    """What lies at a home.

    Args:
        home: ``module:attribute``, or the thing itself.
    """
    if not isinstance(home, str):
        return home
    module, _, attribute = home.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Members(MutableMapping[str, T]):
    """The members of a family by name; whoever looks finds those of all plugins, too.

    Args:
        family: what a member is, for errors.
        homes: name -> ``module:attribute``.
    """

    def __init__(self, family: str, homes: Mapping[str, T | str]) -> None:
        self.family = family
        self._homes: dict[str, T | str] = dict(homes)
        self._owners = dict.fromkeys(homes, _PACKAGE)

    def __getitem__(self, name: str) -> T:
        loading.load()
        member: T = resolved(self._homes[name])
        return member

    def __setitem__(self, name: str, member: T | str) -> None:
        self._homes[name] = member

    def __delitem__(self, name: str) -> None:
        del self._homes[name]

    def __iter__(self) -> Iterator[str]:
        loading.load()
        return iter(tuple(self._homes))

    def __len__(self) -> int:
        loading.load()
        return len(self._homes)

    def __contains__(self, name: object) -> bool:
        loading.load()
        return name in self._homes

    def named(self, name: str, setting: str, also: tuple[str, ...] = ()) -> T:
        """The member of this name.

        Args:
            name: as a recipe has it.
            setting: the recipe's entry.
            also: what else may stand there, for errors.

        Raises:
            RecipeError: there is none; names the nearest one.
        """
        if name not in self:
            raise RecipeError(
                f"{setting}={name}: unknown; {did_you_mean(name, [*also, *self])}known are {', '.join([*also, *self])}"
                f"{loading.way_to_load()}"
            )
        return self[name]

    def add(self, name: str, member: T | str) -> None:
        """A further member; the same one under the same name may come again.

        Raises:
            UsageError: another member has this name.
        """
        if name in self._homes and self._homes[name] is not member and self._homes[name] != member:
            raise UsageError(
                f"{loading.at_work() or 'this program'}: registers the {self.family} {name!r}, a name that "
                f"{self._owners.get(name, _PACKAGE)} has already; register it under another name"
            )
        self._homes[name] = member
        self._owners.setdefault(name, loading.at_work() or "this program")
