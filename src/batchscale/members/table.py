"""A family's table: name -> member, each imported when it is first asked for; plugins add to it."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from batchscale.errors import BatchscaleError, RecipeError, UsageError, one_line
from batchscale.members import loading
from batchscale.words import did_you_mean

T = TypeVar("T")
_PACKAGE, _PROGRAM = "batchscale", "this program"
_NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)


def _at_home(home: Any) -> Any:
    """What lies at ``module:attribute``; what is no text is the thing itself."""
    if not isinstance(home, str):
        return home
    module, _, attribute = home.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Members(MutableMapping[str, T]):
    """The members of a family by name; whoever looks finds those of all plugins, too.

    Args:
        family: what a member is, for errors.
        homes: name -> ``module:attribute``.
        first, last: words that may stand in the place of a name, and so are none; listed around the names.
    """

    def __init__(
        self, family: str, homes: Mapping[str, T | str], first: tuple[str, ...] = (), last: tuple[str, ...] = ()
    ) -> None:
        self.family, self._first, self._last = family, first, last
        self._homes: dict[str, T | str] = dict(homes)
        self._owners = dict.fromkeys(homes, _PACKAGE)

    def __getitem__(self, name: str) -> T:
        loading.load()
        home, owner = self._homes[name], self._owners.get(name, _PACKAGE)
        try:
            with contextlib.nullcontext() if owner == _PACKAGE else loading.aside():
                member: T = _at_home(home)
        except Exception as error:
            if owner == _PACKAGE:
                raise
            raise UsageError(
                f"{owner}: its {self.family} {name!r} cannot be imported from {home} ({one_line(error)}); mend it, or "
                f"use another {self.family}"
            ) from error
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

    def words(self) -> list[str]:
        """All that a recipe may say: the names, and what may stand in their place."""
        return [*self._first, *self, *self._last]

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
            words = [*also, *self]
            raise RecipeError(
                f"{setting}={name}: unknown; {did_you_mean(name, words)}known are {', '.join(words)}"
                f"{loading.way_to_load()}"
            )
        return self[name]

    @contextlib.contextmanager
    def building(self, name: str, setting: str, place: str) -> Iterator[None]:
        """Within it a plugin's member builds: what breaks there is one line, what it prints goes to standard error.

        Args:
            name: of the member.
            setting: the recipe's entry.
            place: what it builds for, in words.

        Raises:
            UsageError: it has raised; ours raise what they raise.
        """
        if self._owners.get(name, _PACKAGE) == _PACKAGE:
            yield
            return
        try:
            with loading.aside():
                yield
        except BatchscaleError:
            raise
        except Exception as error:
            raise UsageError(
                f"{setting}={name}: its builder failed for {place} ({one_line(error)}); mend it, or use another "
                f"{self.family}"
            ) from error

    def add(self, name: str, member: T | str) -> None:
        """A further member; the same one under the same name may come again.

        Raises:
            UsageError: another member has this name, or it is no word that a recipe could hold.
        """
        registering = f"{loading.at_work() or _PROGRAM}: registers the {self.family} {name!r}"
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in (*self._first, *self._last):
            raise UsageError(
                f"{registering}: must be a word of letters, digits, '_', '-' and '.' that begins with a letter, and "
                f"not {' or '.join((*self._first, *self._last)) or 'empty'}; give it another name"
            )
        if name in self._homes and self._homes[name] is not member and self._homes[name] != member:
            raise UsageError(
                f"{registering}, a name that {self._owners.get(name, _PACKAGE)} has already; "
                f"register it under another name"
            )
        self._homes[name] = member
        self._owners.setdefault(name, loading.at_work() or _PROGRAM)
