"""A grid's curves and its table of ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchscale.records.findings import Axis, Figure, Series, Table
from batchscale.study.evidence.curves import Curve, loss_curve, mean_curve, score_curve
from batchscale.study.evidence.measured import against_score, cells_of, columns_of, keys_of
from batchscale.study.grid.answer import Answer, by_way
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome

_CAPTION = (
    "Mean over the seeds, with the range from the lowest to the highest, where all of them have a value; runs that "
    "diverged are left out."
)


def figures(case: Case[Any], answer: Answer, outcomes: Sequence[Outcome]) -> tuple[Figure, ...]:
    """Training loss and score against epoch: the mean over a way's runs, and from the lowest to the highest."""
    losses, scores = [], []
    for way, group in by_way(outcomes).items():
        done = [outcome for outcome in group if outcome.status == "done"]
        losses.append(_series(way, [loss_curve(o.folder, o.cell.recipe.epochs) for o in done]))
        scores.append(_series(way, [score_curve(o.folder, answer.judged.key) for o in done]))
    judged = answer.judged
    name = judged.score.name
    drawn = (("loss", "Training loss", "loss", losses), (name, name.capitalize(), judged.label, scores))
    all_figures = (
        Figure(
            id=key,
            title=f"{words} of every way",
            caption=_CAPTION,
            x=Axis(label="epoch"),
            y=Axis(label=label),
            series=tuple(curve for curve in series if curve.x),
        )
        for key, words, label, series in drawn
    )
    measured = against_score({way.name: (way.measured, way.values) for way in answer.ways}, judged.label)
    return (*(figure for figure in all_figures if figure.series), *measured)


def _series(way: str, curves: Sequence[Curve]) -> Series:
    mean = mean_curve(curves)
    return Series(name=way, x=mean.epochs, y=mean.values, low=mean.low, high=mean.high, style="curve")


def tables(case: Case[Any], answer: Answer) -> tuple[Table, ...]:
    """One row a way."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    rows, measured = [], keys_of([way.measured for way in answer.ways])
    for way in answer.ways:
        each = " ".join("-" if value is None else f"{value:.2f}" for value in way.values)
        lr = float(f"{way.lr:.6g}")
        rows.append(
            (
                *(way.name, way.minibatch, lr, rounded(way.mean), rounded(way.deviation), each),
                *(way.diverged, way.failed, *cells_of(measured, way.measured)),
            )
        )
    unit = answer.judged.unit_words
    return (
        Table(
            title="Ways",
            columns=(
                "way",
                "minibatch",
                "lr",
                f"mean {answer.judged.label}",
                "std (points)" if unit == "(%)" else "std",
                f"each seed {unit}".rstrip(),
                "diverged",
                "failed",
                *columns_of(measured),
            ),
            rows=tuple(rows),
            caption="Mean and standard deviation (n - 1) over the seeds; none where a run diverged.",
        ),
    )
