"""Figures and tables of error against minibatch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from batchscale.records.files import is_number, read_lines
from batchscale.records.findings import Axis, Figure, Mark, Series, Table
from batchscale.study.evidence.curves import Group, curve_figures
from batchscale.study.evidence.elbow import Answer, Point
from batchscale.study.evidence.quantities import evaluated_on
from batchscale.study.rules import said
from batchscale.study.runner.cell import Outcome

_BAND = "whiskers: standard deviation over seeds (n - 1); the two runs themselves where there are two seeds"
_WIDE = 4  # times the lowest error: from there on the axis is logarithmic


def error_figure(
    points: Mapping[str, Sequence[Point]],
    found: Answer,
    tolerance: float,
    words: str,
    on: str,
    runs: Mapping[tuple[str, int], str],
) -> Figure:
    """Error against minibatch, one line a rule.

    Args:
        points: rule -> points in rising order.
        found: the elbows.
        tolerance: points of error.
        words: for the statistic.
        on: what the errors are of: test, or holdout.
        runs: (rule, minibatch) -> folder of the first seed's run.
    """
    return Figure(
        id="error-minibatch",
        title="Error against minibatch",
        caption=f"Mean {words}; {_BAND}. A gap is a minibatch where a run diverged or has no result.",
        x=Axis(label="minibatch kn (images)", scale="log2"),
        y=Axis(label=f"{on} error (%)", scale=_scale([point.mean for of in points.values() for point in of])),
        series=tuple(_rule_series(rule, of, runs) for rule, of in points.items()),
        marks=tuple(_marks(found, tolerance)),
    )


def _scale(means: Sequence[float]) -> Literal["linear", "log10"]:
    """Logarithmic where the worst would press the best flat."""
    finite = [mean for mean in means if math.isfinite(mean)]
    return "log10" if finite and 0 < _WIDE * min(finite) < max(finite) else "linear"


def _rule_series(rule: str, points: Sequence[Point], runs: Mapping[tuple[str, int], str]) -> Series:
    bands = [point.band() for point in points]
    return Series(
        name=said(rule),
        x=tuple(point.minibatch for point in points),
        y=tuple(None if math.isinf(point.mean) else point.mean for point in points),
        low=tuple(band and band[0] for band in bands) if any(bands) else (),
        high=tuple(band and band[1] for band in bands) if any(bands) else (),
        runs=tuple(runs[rule, point.minibatch] for point in points),
    )


def _marks(found: Answer, tolerance: float) -> list[Mark]:
    """The reference's error with the tolerance, and the elbow, where there are such."""
    marks = []
    if math.isfinite(found.reference.mean):
        marks.append(Mark(label=f"reference + {tolerance:g}", y=found.reference.mean + tolerance))
    if (elbow := found.elbows[found.best]).minibatch:
        marks.append(
            Mark(label=f"elbow of rule {found.best}{' or beyond' if elbow.at_least else ''}", x=elbow.minibatch)
        )
    return marks


def rule_curves(outcomes: Sequence[Outcome], rule: str, reference: int, epochs: float) -> tuple[Figure, ...]:
    """Curves of every minibatch under one rule over the reference's.

    Args:
        outcomes: of all runs.
        rule: whose runs to draw.
        reference: the minibatch drawn thick.
        epochs: of a run.
    """
    of = [o for o in outcomes if o.cell.labels["rule"] == rule and o.status == "done"]
    minibatches = sorted({o.cell.labels["minibatch"] for o in of}, key=lambda m: (m != reference, m))
    groups = [
        Group(
            f"kn = {minibatch:,}{' (reference)' if minibatch == reference else ''}",
            [o.folder for o in of if o.cell.labels["minibatch"] == minibatch],
            minibatch == reference,
        )
        for minibatch in minibatches
    ]
    about = f"Runs by {said(rule)}, means over seeds; runs that diverged are left out."
    return curve_figures(
        groups, epochs, evaluated_on(of), about, "against epochs, every minibatch over the reference's"
    )


def elbow_table(found: Answer) -> Table:
    """One row a rule."""
    rows = []
    for rule, elbow in found.elbows.items():
        sure = elbow.shares.get(str(elbow.minibatch or "none")) if elbow.shares else None
        rows.append(
            (
                rule,
                elbow.minibatch,
                "yes" if elbow.at_least else "no",
                elbow.low if elbow.shares else None,
                elbow.high if elbow.shares else None,
                None if sure is None else round(100 * sure),
            )
        )
    return Table(
        title="The elbow of every rule",
        columns=(
            "rule",
            "elbow (kn)",
            "largest tried",
            "5 % of resamples below",
            "95 % below",
            "resamples at the elbow (%)",
        ),
        rows=tuple(rows),
        caption="The largest minibatch whose mean error, and that of every smaller one from the reference on, is "
        "within the tolerance. Seeds drawn again with replacement, at every minibatch on its own; an empty cell: "
        "none is within, or one seed.",
    )


def error_table(points: Mapping[str, Sequence[Point]], found: Answer) -> Table:
    """One row a rule and minibatch."""
    rows = []
    for rule, of in points.items():
        for point in of:
            known, mean = [e for e in point.errors if math.isfinite(e)], point.mean
            apart = None if math.isinf(mean) or math.isinf(found.reference.mean) else mean - found.reference.mean
            rows.append(
                (
                    rule,
                    point.minibatch,
                    None if math.isinf(mean) else round(mean, 3),
                    None if (spread := point.deviation()) is None else round(spread, 3),
                    None if apart is None else round(apart, 3),
                    ", ".join(f"{e:.2f}" for e in known) or None,
                    len(point.errors) - len(known),
                )
            )
    return Table(
        title="Error of every rule and minibatch",
        columns=("rule", "kn", "mean error (%)", "deviation (n - 1)", "to the reference", "each seed (%)", "diverged"),
        rows=tuple(rows),
    )


def image_points(outcomes: Sequence[Outcome]) -> float | None:
    """What one image of the evaluated set is worth in points, from the first run that tells."""
    for outcome in outcomes:
        for line in read_lines(outcome.folder / "evaluations.jsonl"):
            if is_number(images := line.get("images")) and images > 0:
                return 100 / images
    return None
