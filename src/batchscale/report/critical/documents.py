"""What the page reads of documents, by their keys; what is not as it should be is not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchscale.records.files import is_number, parse_json
from batchscale.report.text import flat


def reference(folder: Path) -> dict[str, str]:
    """The recipe that a study's runs start from."""
    try:
        content: Any = parse_json((folder / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    recipe = content.get("reference") if isinstance(content, dict) else None
    return flat(recipe) if isinstance(recipe, dict) else {}


def minibatch_of(entries: Mapping[str, str]) -> float:
    """kn, of a recipe's entries; 0 where they do not tell."""
    try:
        return float(entries["minibatch.workers"]) * float(entries["minibatch.per_worker"])
    except (KeyError, ValueError):
        return 0.0


def parts_of(entries: Mapping[str, str]) -> tuple[str, int]:
    """What an example consists of, and how many of them: those that have parts are cut from a text."""
    sequence = entries.get("data.sequence", "")
    return ("tokens", int(sequence)) if sequence.isascii() and sequence.isdecimal() else ("", 1)


def ends(interval: Any) -> tuple[float | None, float | None]:
    """Of an interval."""
    if not isinstance(interval, list) or len(interval) != 2:
        return None, None
    low, high = map(number, interval)
    return low, high


def number(value: Any) -> float | None:
    """None for what is no number."""
    return float(value) if is_number(value) else None


def entries_of(value: Any) -> list[dict[str, Any]]:
    """The mappings of a list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
