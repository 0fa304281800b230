"""Numbers with their nouns, for sentences."""

from __future__ import annotations


def counted(number: float | str, noun: str, form: str = "") -> str:
    """``1 step``, ``2 steps``, ``2 processes``.

    Args:
        number: how many, or that as it is written.
        noun: of one.
        form: how the number is written, such as ``,`` or ``g``.
    """
    several = "es" if noun.endswith("s") else "s"
    written = f"{number:{form}}"
    return f"{written} {noun}{'' if written == '1' else several}"


def has(number: int) -> str:
    """The verb of so many: ``has`` or ``have``."""
    return "has" if number == 1 else "have"
