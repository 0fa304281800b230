"""The document of ``bench step`` as an aligned table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        f"{counted(minibatch['images'], 'image')} a step, {counted(document['processes'], 'process')} of "
        f"{counted(conditions['threads'], 'thread')}",
        "",
        *row_lines(document),
        "",
        *ratio_lines(document, {key: text.format(best=best) for key, text in _RATIOS.items()}),
        "",
        *_condition_lines(document),
    ]
    return "\n".join(lines)


def row_lines(document: Mapping[str, Any]) -> list[str]:
    """The contenders, one a line."""
    width = max(18, *(len(row["name"]) + 2 for row in document["rows"]))
    return [
        f"{'contender':<{width}}{'images/s':>10}{'iqr':>9}{'images/CPU-s':>14}",
        *(
            f"{row['name']:<{width}}{row['images_per_second']:>10,.0f}{row['iqr']:>9,.0f}"
            f"{row['images_per_cpu_second']:>14,.0f}"
            for row in document["rows"]
        ),
    ]


def ratio_lines(document: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    """The ratios that were measured, one a line.

    Args:
        document: with ratios, ratio_iqr, ratios_per_cpu_second and not_measurable_now.
        texts: a ratio's name -> how it reads.
    """
    names = {key: text for key, text in texts.items() if document["ratios"].get(key) is not None}
    if not names:
        return []
    width = max(map(len, names.values())) + 2
    lines = [f"{'ratio, median of paired rounds':<{width}}{'images/s':>10}{'iqr':>8}{'images/CPU-s':>14}"]
    for key, text in names.items():
        unsteady = "  not measurable now" if key in document["not_measurable_now"] else ""
        lines.append(
            f"{text:<{width}}{document['ratios'][key]:>10.3f}{document['ratio_iqr'][key]:>8.3f}"
            f"{document['ratios_per_cpu_second'][key]:>14.3f}{unsteady}"
        )
    return lines


def _condition_lines(document: dict[str, Any]) -> list[str]:
    at = document["conditions"]
    steps = ", ".join(f"{name} {count}" for name, count in at["steps_per_block"].items())
    return [
        f"{at['date']}, {at['cpu']}, {counted(at['cores'], 'core')}, load {at['load_average']:g}, torch {at['torch']}, "
        f"lightning {at['lightning']}, accelerate {at['accelerate']}",
        f"{counted(at['rounds'], 'round')}; steps in a turn: {steps}",
        f"ceiling: {at['ceiling']['memory_format']}, micro-batch {at['ceiling']['micro_batch']}; "
        f"batchscale: micro-batch {at['micro_batch']}",
        *(f"note: {note}" for note in document["notes"]),
    ]
