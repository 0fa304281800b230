"""A text as numbers: its characters by their place in the training text's sorted alphabet, or its bytes."""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
import torch

from batchscale.errors import DataError
from batchscale.words import counted

BYTES = "bytes"
"""The vocabulary of bytes, by name; there are 256, whether or not each occurs."""

_BLOCK = 1 << 20  # characters at once: four bytes each on their way
_NAMED = 10  # unknown characters of a message


def read_bytes(path: Path) -> bytes:
    """The bytes of a text.

    Raises:
        DataError: it cannot be read, or is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}): must be a readable text file; give another"
        ) from None
    if not content:
        raise DataError(f"{path}: is empty: must be a text; give another, or fetch it again")
    return content


def decoded(content: bytes, named: str) -> str:
    """The characters of a text in UTF-8, without a byte order mark.

    Args:
        content: of the file.
        named: the file, for errors.

    Raises:
        DataError: it is not UTF-8: where, and the way out.
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        place = error.start + len(content) - len(content.removeprefix(codecs.BOM_UTF8))
        raise DataError(
            f"{named}: is not UTF-8 at byte {place} ({content[place]:#04x}), and data.tokens=characters reads "
            f"characters; save it as UTF-8, or use data.tokens=bytes"
        ) from None


def of_bytes(content: bytes) -> torch.Tensor:
    """uint8 (L,)."""
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())  # torch wants memory that may be written


def alphabet(text: str, named: str) -> str:
    """The characters of a training text, sorted.

    Raises:
        DataError: it has one alone: there is nothing to learn.
    """
    characters = "".join(sorted(set(text)))
    if len(characters) < 2:
        raise DataError(f"{named}: has one character alone, {characters!r}: must have two or more; give another text")
    return characters


def of_characters(text: str, characters: str, named: str) -> torch.Tensor:
    """The number of every character, (L,), uint8 where that will do.

    Args:
        text: L characters.
        characters: the alphabet, sorted.
        named: the text, for errors.

    Raises:
        DataError: a character that the alphabet has not.
    """
    points = np.array([ord(character) for character in characters], np.uint32)
    small = len(points) < 256  # one number is left for what is unknown
    numbers = np.empty(len(text), np.uint8 if small else np.int32)
    unknown = 255 if small else -1
    table = np.full(int(points[-1]) + 2, unknown, numbers.dtype)
    table[points] = np.arange(len(points))
    for start in range(0, len(text), _BLOCK):
        block = np.frombuffer(text[start : start + _BLOCK].encode("utf-32-le", "surrogatepass"), np.uint32)
        numbers[start : start + len(block)] = table[np.minimum(block, len(table) - 1)]
    if (places := np.flatnonzero(numbers == unknown)).size:
        _refuse_unknown(text, places, named)
    return torch.from_numpy(numbers)


def _refuse_unknown(text: str, places: np.ndarray[tuple[int], np.dtype[np.intp]], named: str) -> None:
    strangers = sorted({text[place] for place in places})
    listed = ", ".join(ascii(character) for character in strangers[:_NAMED])
    more = f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
    raise DataError(
        f"{named}: has {counted(len(strangers), 'character')} that the training text has not ({listed}{more}; the "
        f"first at character {places[0]}), so the net has no number for it; use data.tokens=bytes, or another part"
    )
