"""Numbers with their nouns, names of files, and the name that was meant, for sentences."""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Iterable

_IMAGES = re.compile(r"\b([Ii])mage(s?)\b")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


UNWRITABLE = "batchscale-unwritable"
"""Name of the way in which an encoder writes what it cannot (``errors=`` of ``str.encode`` and of streams)."""


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """A byte that is no UTF-8 (in Python a lone surrogate, PEP 383) as ``\\xff``, another character as Python does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unfit = error.object[error.start : error.end]
    escapes = [
        f"\\x{ord(c) & 0xFF:02x}" if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace").decode()
        for c in unfit
    ]
    return "".join(escapes), error.end


codecs.register_error(UNWRITABLE, _escaped)


_HISSING = ("s", "ch", "sh", "x")
"""Nouns that take -es; ``epoch`` does not, for its ch is a k."""


def counted(number: float | str, noun: str, form: str = "") -> str:
    """``1 step``, ``2 steps``, ``2 processes``.

    Args:
        number: how many, or that as it is written.
        noun: of one.
        form: how the number is written, such as ``,`` or ``g``.
    """
    several = "es" if noun.endswith(_HISSING) and not noun.endswith("epoch") else "s"
    written = f"{number:{form}}"
    return f"{written} {noun}{'' if written == '1' else several}"


def counts_between(first: int, last: int) -> str:
    """``8 to 512 devices``, ``1 device``."""
    return counted(last, "device", ",") if first == last else f"{first:,} to {last:,} devices"


def rounded(value: float) -> str:
    """To four digits where it is small, without an exponent where it is large: ``9.876``, ``5,000,000``."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def of_examples(text: str, examples: str) -> str:
    """Words that speak of images, of a task's examples: "training sequences".

    Args:
        text: of images.
        examples: what the task calls several of them, such as "sequences".
    """

    def word(match: re.Match[str]) -> str:
        plain = examples if match[2] else examples.removesuffix("s")
        return plain.capitalize() if match[1] == "I" else plain

    return _IMAGES.sub(word, text)


def has(number: int) -> str:
    """The verb of so many: ``has`` or ``have``."""
    return "has" if number == 1 else "have"


def shown(text: str) -> str:
    """A file's name, or words with one in them, as they can be written anywhere, in one line.

    Bytes that are no UTF-8 become ``\\xff``, line breaks ``\\n``, and other control characters, which would act on a
    terminal, ``\\x1b``.
    """
    plain = text.encode("utf-8", UNWRITABLE).decode("utf-8")
    return _CONTROL.sub(lambda control: control[0].encode("unicode_escape").decode("ascii"), plain)


def nearest(name: str, known: Iterable[str], likeness: float = 0.0) -> str:
    """The known name that is most like this one, "" where none is like enough.

    Args:
        name: as typed.
        known: all there are.
        likeness: the least, from 0 (any) to 1 (equal), as of difflib.
    """
    return next(iter(difflib.get_close_matches(name, known, 1, likeness)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean NAME? ``, or nothing where no known name is like it."""
    meant = nearest(name, known, 0.4)
    return f"did you mean {meant}? " if meant else ""
