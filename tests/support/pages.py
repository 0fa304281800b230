"""Pages of Markdown for tests: their code blocks, and their prose line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted((ROOT / "docs" / "learn").glob("*.md"))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of code: its language (empty where it names none) and its text."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    return [Block(*groups) for groups in _FENCE.findall(page.read_text(encoding="utf-8"))]


def prose(page: Path) -> Iterator[str]:
    """The lines that are read as sentences: no code, tables, headings or pictures; of links the words alone."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", "|", "<")):
            yield re.sub(r"^\s*(?:[-*]|\d+\.) ", "", line).strip()


def words(line: str) -> list[str]:
    """What counts as a word: whatever holds a letter or a digit; a piece of code is one."""
    return [word for word in re.sub(r"`[^`]*`", "code", line).split() if re.search(r"\w", word)]


def sentences(line: str) -> list[str]:
    """A line cut where a sentence ends and another one begins."""
    return re.split(r"(?<=[.!?])[\"*)]*\s+(?=[\"*(`]*[A-Z`])", re.sub(r"`[^`]*`", "`code`", line))
