"""What a task calls its examples, in all that a study says: the studies write of images, another task of its own."""

from __future__ import annotations

from typing import Any

from batchscale.members import TASKS
from batchscale.recipe import Recipe
from batchscale.records.findings import Findings
from batchscale.words import of_examples

_WORDS = {"title", "asked", "answer", "warnings", "caption", "label", "name", "columns"}
"""Entries of findings that are words for people; rows and result keep their keys, whatever the task."""
_MINIBATCH = {"kn", "minibatch kn"}
_AS_THEY_ARE = {"result", "rows", "command", "environment", "recipe"}


def parts_of(recipe: Recipe) -> tuple[str, int]:
    """What the examples of a recipe's task consist of, and how many of them: ("tokens", 64); ("", 1) where none count.

    Those that have parts are cut from a text.
    """
    parts = TASKS.named(recipe.task, "task").parts
    return (parts, recipe.data.sequence) if parts and recipe.data.sequence else ("", 1)


def with_parts(findings: Findings, recipe: Recipe) -> Findings:
    """The findings with the tokens of a minibatch beside its sequences, in every table that has a minibatch."""
    parts, each = parts_of(recipe)
    if not parts:
        return findings
    tables = []
    for table in findings.tables:
        place = next((i for i, column in enumerate(table.columns, 1) if column in _MINIBATCH), 0)
        if place:
            columns = (*table.columns[:place], f"{parts} a minibatch", *table.columns[place:])
            rows = tuple((*row[:place], each * row[place - 1], *row[place:]) for row in table.rows)  # type: ignore[operator]
            table = table.model_copy(update={"columns": columns, "rows": rows})
        tables.append(table)
    return findings.model_copy(update={"tables": tuple(tables)})


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
    return of_examples(value, examples) if is_words and isinstance(value, str) else value
