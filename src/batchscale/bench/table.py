"""The document of ``bench step`` as an aligned table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscale.records.findings import Table
from batchscale.records.text import as_text
from batchscale.words import counted

_RATIOS = {
    "to_ceiling": "batchscale / ceiling",
    "to_best_documented_peer": "batchscale / {best}, the best documented peer",
    "to_tuned_peer": "batchscale / ddp_tuned",
    "exact_to_fast": "batchscale_exact / batchscale",
}


def as_table(document: dict[str, Any]) -> str:
    """Rows, ratios with their spread, conditions and notes, as lines of text."""
    minibatch, conditions = document["minibatch"], document["conditions"]
    best = document["best_documented_peer"]
    lines = [
        f"{document['recipe']}: kn = {minibatch['workers']} x {minibatch['per_worker']} = "
        f"{counted(minibatch['images'], word_of(document).removesuffix('s'))} a step, "
        f"{counted(document['processes'], 'process')} of {counted(conditions['threads'], 'thread')}",
        "",
        rows_text(document),
        "",
        ratios_text(document, {key: text.format(best=best) for key, text in _RATIOS.items()}),
        "",
        *_condition_lines(document),
    ]
    return "\n".join(lines)


def rows_text(document: Mapping[str, Any]) -> str:
    """The contenders, one a line."""
    rows = tuple(
        (row["name"], *(f"{row[key]:,.0f}" for key in ("images_per_second", "iqr", "images_per_cpu_second")))
        for row in document["rows"]
    )
    word = word_of(document)
    return as_text(Table(title="", columns=("contender", f"{word}/s", "iqr", f"{word}/CPU-s"), rows=rows))


def word_of(document: Mapping[str, Any]) -> str:
    """What the document's examples are called."""
    return str(document["conditions"].get("examples", "images"))


def ratios_text(document: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The ratios that were measured, one a line.

    Args:
        document: with ratios, ratio_iqr, ratios_per_cpu_second and not_measurable_now.
        texts: a ratio's name -> how it reads.
    """
    rows = tuple(
        (
            text,
            *(f"{document[part][key]:.3f}" for part in ("ratios", "ratio_iqr")),
            _interval_text(document, "ratio_interval", key),
            f"{document['ratios_per_cpu_second'][key]:.3f}",
            _interval_text(document, "ratio_interval_per_cpu_second", key),
            "not measurable now" if key in document["not_measurable_now"] else document["verdicts"].get(key, ""),
        )
        for key, text in texts.items()
        if document["ratios"].get(key) is not None
    )
    word = word_of(document)
    columns = ("ratio, median of paired rounds", f"{word}/s", "iqr", "90 %", f"{word}/CPU-s", "90 %", "")
    return as_text(Table(title="", columns=columns, rows=rows)) if rows else ""


def _interval_text(document: Mapping[str, Any], part: str, key: str) -> str:
    """Of the median; nothing where the rounds are too few for one."""
    ends = document[part].get(key)
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""


def _condition_lines(document: dict[str, Any]) -> list[str]:
    conditions = document["conditions"]
    steps = ", ".join(f"{name} {count}" for name, count in conditions["steps_per_block"].items())
    return [
        f"{conditions['date']}, {conditions['cpu']}, {counted(conditions['cores'], 'core')}, "
        f"load {conditions['load_average']:g}, torch {conditions['torch']}, lightning {conditions['lightning']}, "
        f"accelerate {conditions['accelerate']}",
        f"{counted(conditions['rounds'], 'round')}; steps in a turn: {steps}",
        f"ceiling: {conditions['ceiling']['memory_format']}, micro-batch {conditions['ceiling']['micro_batch']}; "
        f"batchscale: micro-batch {conditions['micro_batch']}",
        *(f"note: {note}" for note in document["notes"]),
    ]
