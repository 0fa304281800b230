"""Lists that users write: the lines of a text file, whatever editor or system wrote it."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from batchscale.errors import DataError
from batchscale.words import shown

_SAVE = "it is no text in UTF-8: save it as UTF-8, or "
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Line:
    """A line that is not blank, without the blanks around it; numbered from 1."""

    number: int
    text: str

    def __str__(self) -> str:
        return f"line {self.number} ({quoted(self.text)})"


def lines_of(path: Path, named: str = "") -> list[Line]:
    """The lines of a list.

    A byte order mark and the line ends of Windows are taken away. Bytes that are no UTF-8 stay as they are, as in the
    names of files, with which they are compared.

    Args:
        path: of the list.
        named: how messages name it; the path where it is "".

    Raises:
        DataError: it cannot be read, or is no text in UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{named or path}: cannot be read ({reason}): must be a readable text file; give another, or fetch it again"
        ) from None
    if content.startswith(_WIDE) or b"\0" in content:
        kind = "UTF-16" if content.startswith(_WIDE) else "no text (it holds bytes of value 0)"
        raise DataError(f"{named or path}: is {kind}: must be text in UTF-8; save it as UTF-8 and try again")
    text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    split = re.split("\r\n|\n|\r", text)  # str.splitlines would also cut at characters that names may hold
    return [Line(number, stripped) for number, line in enumerate(split, 1) if (stripped := line.strip())]


def quoted(text: str) -> str:
    """A word or a name in a message; repr would write bytes that are no UTF-8 as surrogates."""
    return f"'{shown(text)}'"


def encoding_fault(text: str) -> str:
    """The way out where words of a list are no UTF-8; "" where they are."""
    return _SAVE if any("\udc80" <= character <= "\udcff" for character in text) else ""


def unquoted(text: str) -> str:
    """A field of a CSV line without the quotes around it."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text
