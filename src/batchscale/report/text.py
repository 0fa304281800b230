"""Words and values from files, made fit to stand in a page; the template escapes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def clean(words: str) -> str:
    """The words with every character that XML forbids shown as U+FFFD."""
    return _UNFIT.sub("�", words)


def as_words(value: Any) -> str:
    """One value of a recipe, a row or an environment as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {as_words(entry)}" for key, entry in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(as_words(entry) for entry in value)
    return clean(str(value))


def flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Entries under their dotted names."""
    flattened: dict[str, str] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping) and value:
            flattened.update(flat(value, f"{prefix}{key}."))
        else:
            flattened[clean(f"{prefix}{key}")] = as_words(value)
    return flattened


def command_line(words: Sequence[Any]) -> str:
    """Commands to copy into a shell; a word of && stands between two."""
    commands: list[list[str]] = [[]]
    for word in map(str, words):
        if word == "&&":
            commands.append([])
        else:
            commands[-1].append(word)
    return clean(" && ".join(shlex.join(command) for command in commands))
