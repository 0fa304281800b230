"""What lies in a part of an image set and is no image of it: counted by its kind, the first of each named."""

from __future__ import annotations

from collections import Counter
from typing import Any

from batchscale.words import counted, shown

_NAMED = 3


class PassedOver:
    """Kinds are a noun and what follows it, such as ("file", "of another kind")."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._names: dict[tuple[str, str], list[str]] = {}

    def add(self, noun: str, which: str, name: str) -> None:
        """One more."""
        self._counts[noun, which] += 1
        names = self._names.setdefault((noun, which), [])
        if len(names) < _NAMED:
            names.append(shown(name))

    def number(self, noun: str, which: str) -> int:
        """How many of a kind."""
        return self._counts[noun, which]

    def record(self) -> dict[str, Any]:
        """Kind -> how many, and the first names."""
        return {
            f"{noun} {which}".strip(): {"number": number, "such_as": self._names[noun, which]}
            for (noun, which), number in self._counts.items()
        }

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        kinds = []
        for (noun, which), number in self._counts.items():
            names = ", ".join(self._names[noun, which]) + (", ..." if number > _NAMED else "")
            kinds.append(f"{counted(number, noun)} {which}".strip() + f" ({names})")
        return ", ".join(kinds)
