"""What a task calls its examples, in all that a study says: the studies write of images, another task of its own."""

from __future__ import annotations

import re
from typing import Any

from batchscale.records.findings import Findings

_IMAGES = re.compile(r"\b([Ii])mage(s?)\b")
_WORDS = {"title", "asked", "answer", "warnings", "caption", "label", "name", "columns"}
"""Entries of findings that are words for people; rows and result keep their keys, whatever the task."""
_AS_THEY_ARE = {"result", "rows", "command", "environment", "recipe"}


def in_words_of(findings: Findings, examples: str) -> Findings:
    """The findings with "sequences" in place of "images", where the task says so.

    Args:
        findings: in images.
        examples: what the task calls several of them, such as "sequences".
    """
    if examples == "images":
        return findings
    content = findings.model_dump()
    kept = {name: content[name] for name in _AS_THEY_ARE}
    drawn = [{**table, "rows": ()} for table in content["tables"]]
    words = _spoken({**content, "tables": drawn}, examples, False)
    for table, whole in zip(words["tables"], content["tables"], strict=True):
        table["rows"] = whole["rows"]
    return Findings.model_validate({**words, **kept})


def _spoken(value: Any, examples: str, is_words: bool) -> Any:
    if isinstance(value, dict):
        return {name: _spoken(each, examples, name in _WORDS) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_spoken(each, examples, is_words) for each in value)
    return _replaced(value, examples) if is_words and isinstance(value, str) else value


def _replaced(text: str, examples: str) -> str:
    def word(match: re.Match[str]) -> str:
        plain = examples if match[2] else examples.removesuffix("s")
        return plain.capitalize() if match[1] == "I" else plain

    return _IMAGES.sub(word, text)
