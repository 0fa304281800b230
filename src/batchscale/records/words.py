"""Numbers with their nouns, for sentences."""

from __future__ import annotations


def counted(number: float, noun: str, form: str = "") -> str:
    """``1 step``, ``2 steps``, ``2 processes``.

    Args:
        number: how many.
        noun: of one.
        form: how the number is written, such as ``,`` or ``g``.
    """
    several = "es" if noun.endswith("s") else "s"
    return f"{number:{form}} {noun}{'' if number == 1 else several}"
