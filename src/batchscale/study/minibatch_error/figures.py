"""Figures and tables of error against minibatch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from batchscale.records.findings import Axis, Figure, Mark, Series, Table
from batchscale.study.evidence.curves import Group, curve_figures
from batchscale.study.evidence.elbow import Answer as Elbows
from batchscale.study.evidence.elbow import Point
from batchscale.study.evidence.judged import Judged, judged_of
from batchscale.study.evidence.measured import MeasuredEnds, against_score, cells_of, columns_of, keys_of
from batchscale.study.evidence.quantities import score_of
from batchscale.study.minibatch_error.answer import Answer, together
from batchscale.study.minibatch_error.question import Question
from batchscale.study.minibatch_error.words import statistic_words
from batchscale.study.question import Case
from batchscale.study.rules import rule_words
from batchscale.study.runner.cell import Outcome

_BAND = "whiskers: standard deviation over seeds (n - 1); the two runs themselves where there are two seeds"
_WIDE = 4  # times the lowest error: from there on the axis is logarithmic


def figures(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> tuple[Figure, ...]:
    """Error against minibatch, one line a rule; curves of the best rule's runs."""
    folders = {(o.cell.labels["rule"], o.cell.labels["minibatch"]): o.row()["folder"] for o in reversed(outcomes)}
    points, name = answer.points, answer.judged.score.name
    against_minibatch = Figure(
        id=f"{name}-minibatch",
        title=f"{name.capitalize()} against minibatch",
        caption=f"Mean {statistic_words(case, answer.judged)}; {_BAND}. A gap is a minibatch where a run diverged or "
        "has no result.",
        x=Axis(label="minibatch kn (images)", scale="log2"),
        y=Axis(label=answer.judged.label, scale=_scale([point.mean for each in points.values() for point in each])),
        series=tuple(_rule_series(rule, each, folders) for rule, each in points.items()),
        marks=tuple(_marks(answer)),
    )
    return (
        against_minibatch,
        *against_score(_with_scores(case, answer, outcomes), answer.judged.label),
        *_rule_curves(outcomes, answer, case.recipe.epochs),
    )


def _with_scores(
    case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]
) -> dict[str, tuple[Sequence[MeasuredEnds], Sequence[float | None]]]:
    """Name of a rule and minibatch -> what measures said of its runs, and the runs' scores."""
    groups: dict[str, tuple[Sequence[MeasuredEnds], Sequence[float | None]]] = {}
    for (rule, minibatch), group in together(outcomes).items() if answer.measured else ():
        scores = [score_of(outcome, case.question.statistic) for outcome in group]
        finite = [None if score is None or math.isinf(score) else score for score in scores]
        groups[f"kn = {minibatch:,}, {rule}"] = (answer.measured[rule, minibatch], finite)
    return groups


def _scale(means: Sequence[float]) -> Literal["linear", "log10"]:
    """Logarithmic where the worst would press the best flat."""
    finite = [mean for mean in means if math.isfinite(mean)]
    return "log10" if finite and 0 < _WIDE * min(finite) < max(finite) else "linear"


def _rule_series(rule: str, points: Sequence[Point], folders: Mapping[tuple[str, int], str]) -> Series:
    bands = [point.band() for point in points]
    return Series(
        name=rule_words(rule),
        x=tuple(point.minibatch for point in points),
        y=tuple(None if math.isinf(point.mean) else point.mean for point in points),
        low=tuple(band and band[0] for band in bands) if any(bands) else (),
        high=tuple(band and band[1] for band in bands) if any(bands) else (),
        runs=tuple(folders[rule, point.minibatch] for point in points),
    )


def _marks(answer: Answer) -> list[Mark]:
    """The reference's error with the tolerance, and the elbow, where there are such."""
    marks, mean, elbow = [], answer.reference.mean, answer.best
    if math.isfinite(mean):
        sign = "+" if answer.judged.falls else "-"
        marks.append(
            Mark(label=f"reference {sign} {answer.tolerance:.4g}", y=answer.judged.allowed(mean, answer.tolerance))
        )
    if elbow.minibatch:
        beyond = " or beyond" if elbow.at_least else ""
        marks.append(Mark(label=f"elbow of rule {answer.elbows.best}{beyond}", x=elbow.minibatch))
    return marks


def _rule_curves(outcomes: Sequence[Outcome], answer: Answer, epochs: float) -> tuple[Figure, ...]:
    """Curves of every minibatch under the best rule over the reference's."""
    rule, reference = answer.elbows.best, answer.reference.minibatch
    done = [o for o in outcomes if o.cell.labels["rule"] == rule and o.status == "done"]
    minibatches = sorted({o.cell.labels["minibatch"] for o in done}, key=lambda m: (m != reference, m))
    groups = [
        Group(
            f"kn = {minibatch:,}{' (reference)' if minibatch == reference else ''}",
            [o.folder for o in done if o.cell.labels["minibatch"] == minibatch],
            minibatch == reference,
        )
        for minibatch in minibatches
    ]
    about = f"Runs by {rule_words(rule)}, means over seeds; runs that diverged are left out."
    titles = "against epochs, every minibatch over the reference's"
    longest = max((o.cell.recipe.epochs for o in done), default=epochs)
    return curve_figures(groups, longest, judged_of(done), about, titles)


def tables(case: Case[Question], answer: Answer) -> tuple[Table, ...]:
    """The elbows, one row a rule; the errors, one row a rule and minibatch."""
    return _elbow_table(answer.elbows, answer.judged.score.name), _error_table(answer, answer.judged)


def _elbow_table(elbows: Elbows, name: str) -> Table:
    rows = []
    for rule, elbow in elbows.elbows.items():
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
        caption=f"The largest minibatch whose mean {name}, and that of every smaller one from the reference on, is "
        "within the tolerance. Seeds drawn again with replacement, at every minibatch on its own; an empty cell: "
        "none is within, or one seed.",
    )


def _error_table(answer: Answer, judged: Judged) -> Table:
    rows, measured = [], keys_of(list(answer.measured.values()))
    for rule, points in answer.points.items():
        for point in points:
            known, mean = [value for value in point.errors if math.isfinite(value)], point.mean
            apart = None if math.isinf(mean) or math.isinf(answer.reference.mean) else mean - answer.reference.mean
            rows.append(
                (
                    rule,
                    point.minibatch,
                    None if math.isinf(mean) else round(mean, 3),
                    None if (spread := point.deviation()) is None else round(spread, 3),
                    None if apart is None else round(apart, 3),
                    ", ".join(f"{value:.2f}" for value in known) or None,
                    len(point.errors) - len(known),
                    *cells_of(measured, answer.measured.get((rule, point.minibatch), ())),
                )
            )
    name, unit = judged.score.name, judged.unit_words
    columns = (
        "rule", "kn", f"mean {name} {unit}".rstrip(), "deviation (n - 1)", "to the reference",
        f"each seed {unit}".rstrip(), "diverged", *columns_of(measured),
    )  # fmt: skip
    return Table(title=f"{name.capitalize()} of every rule and minibatch", columns=columns, rows=tuple(rows))
