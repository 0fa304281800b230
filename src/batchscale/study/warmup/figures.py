"""Figures and table of warmup."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchscale.records.findings import Figure, Table
from batchscale.study.evidence.curves import Group, curve_figures
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.warmup.answer import Answer
from batchscale.study.warmup.question import REFERENCE, Question


def figures(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> tuple[Figure, ...]:
    """Curves of every warmup over the reference's."""
    groups = [
        Group(
            f"kn = {way.scores.minibatch:,}{'' if way.name == REFERENCE else f', {way.name}'}",
            [o.folder for o in outcomes if o.cell.labels["warmup"] == way.name and o.status == "done"],
            way.name == REFERENCE,
        )
        for way in answer.ways
    ]
    about = "Means over seeds; runs that diverged are left out."
    titles = "with each warmup, against the reference"
    return curve_figures(groups, case.recipe.epochs, answer.judged, about, titles)


def tables(case: Case[Question], answer: Answer) -> tuple[Table, ...]:
    """One row a warmup."""

    def rounded(value: float | None) -> float | None:
        return None if value is None or math.isinf(value) else round(value, 4)

    bar = answer.reference.scores.mean
    table = Table(
        title="Warmup at the large minibatch",
        columns=(
            "warmup", "kn", "training loss", "deviation", answer.judged.label, "deviation", "to the reference",
            "diverged", "runs",
        ),
        rows=tuple(
            (
                way.name, way.scores.minibatch,
                rounded(way.losses.mean), rounded(way.losses.deviation()),
                rounded(way.scores.mean), rounded(way.scores.deviation()),
                rounded(way.scores.mean - bar) if math.isfinite(bar) else None,
                way.diverged, len(way.scores.errors),
            )
            for way in answer.ways
        ),
        caption="Means over seeds, standard deviations with n - 1; training loss of the last whole epoch.",
    )  # fmt: skip
    return (table,)
