"""Figures of steps to the goal, of the best lr and of the epochs, against the minibatch; the table of minibatches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from batchscale.records.findings import Axis, Figure, Mark, Series, Table
from batchscale.study.question import Case
from batchscale.study.runner.cell import Outcome
from batchscale.study.steps_to_target.answer import Answer
from batchscale.study.steps_to_target.question import Question
from batchscale.study.steps_to_target.regimes import MAXIMAL_SLOPE, PERFECT_SLOPE
from batchscale.study.steps_to_target.search import Search, search_of
from batchscale.study.steps_to_target.trials import Reached
from batchscale.words import counted

_X = Axis(label="minibatch kn (images)", scale="log2")
_FIT_POINTS = 65


def figures(case: Case[Question], answer: Answer, outcomes: Sequence[Outcome]) -> tuple[Figure, ...]:
    """Steps, best lr, epochs; none where no minibatch reached the goal."""
    search, reached = search_of(case), answer.reached
    if not reached:
        return ()
    return _steps(answer, search), _lr(reached, search), _epochs(answer, search)


def tables(case: Case[Question], answer: Answer) -> tuple[Table, ...]:
    """One row a minibatch."""
    search = search_of(case)
    names = [dimension.name for dimension in search.space(search.minibatches[0]).dimensions]
    table = Table(
        title="Every minibatch",
        columns=(
            "kn", "steps", "evaluated every", "budget", "epochs", "steps by half", f"best {search.goal.measure}",
            *(name.replace("_", " ") for name in names), "reached", "diverged", "on border",
        ),
        rows=tuple(_row(point, names, search.training_images) for point in answer.points),
        caption=f"steps: the first evaluation {search.goal.side} the goal, over all trials. steps by half: what half "
        "of the trials would have found, on average. Settings are those of the best trial.",
    )  # fmt: skip
    return (table,)


def _row(point: Reached, names: Sequence[str], images: int) -> tuple[str | float | None, ...]:
    best = point.best
    return (
        point.minibatch,
        "not reached" if point.steps is None else point.steps,
        point.interval_steps,
        point.budget_steps,
        None if point.steps is None else round(point.steps * point.minibatch / images, 2),
        None if point.steps_by_half is None else round(point.steps_by_half, 1),
        None if point.best_value is None else float(f"{point.best_value:.4g}"),
        *(None if best is None else float(f"{best.settings[name]:.4g}") for name in names),
        f"{point.reached} of {point.trials}",
        point.diverged,
        ", ".join(best.border) if best else None,
    )


def _smooth(reached: Sequence[Reached]) -> list[float]:
    ends = math.log2(reached[0].minibatch), math.log2(reached[-1].minibatch)
    return [float(b) for b in 2 ** np.linspace(*ends, _FIT_POINTS)]


def _runs(reached: Sequence[Reached]) -> tuple[str, ...]:
    return tuple(point.best.folder if point.best else "" for point in reached)


def _steps(answer: Answer, search: Search) -> Figure:
    goal = search.goal
    return Figure(
        id="steps",
        title=f"Steps to {goal.text}",
        caption=f"The first evaluation {goal.side} the goal over {counted(search.question.trials, 'trial')} at each "
        f"minibatch. Whiskers: down to the evaluation before it, still {goal.other_side} the goal; up to what half of "
        f"the trials would have found on average. "
        f"Regimes by the local slope of log steps against log images (through three minibatches): perfect scaling from "
        f"the left while at most {PERFECT_SLOPE:g}, maximal data parallelism up to the right while above "
        f"{MAXIMAL_SLOPE:g}; not sure where what the evaluations round, or one end of the curve, could decide it.",
        x=_X,
        y=Axis(label="steps to the goal", scale="log10"),
        series=tuple(_steps_series(answer)),
        marks=tuple(Mark(label=regime.text, x=regime.begins, x_end=regime.ends) for regime in answer.regimes),
    )


def _steps_series(answer: Answer) -> list[Series]:
    reached, fit = answer.reached, answer.fit
    missed = [point for point in answer.points if point.steps is None]
    kn = tuple(float(point.minibatch) for point in reached)
    steps = [float(point.steps or 0) for point in reached]
    series = [
        Series(
            name="best trial",
            x=kn,
            y=tuple(steps),
            low=tuple(float(point.steps_before or 0) for point in reached),
            high=tuple(point.steps_by_half for point in reached),
            runs=_runs(reached),
        ),
        Series(name="ideal: twice the images, half the steps", x=kn, y=tuple(steps[0] * kn[0] / b for b in kn),
               style="dashed"),
    ]  # fmt: skip
    if fit is not None:
        smooth = _smooth(reached)
        series.append(
            Series(name="S_min (1 + B_crit / B)", x=tuple(smooth), y=tuple(map(fit.steps, smooth)), style="curve")
        )
    if missed:
        series.append(
            Series(
                name="goal not reached within",
                x=tuple(float(point.minibatch) for point in missed),
                y=tuple(float(point.budget_steps) for point in missed),
                style="points",
                runs=_runs(missed),
            )
        )
    return series


def _lr(reached: Sequence[Reached], search: Search) -> Figure:
    kn = tuple(float(point.minibatch) for point in reached)
    best = [point.best.settings["effective_lr"] if point.best else math.nan for point in reached]
    ranges = [search.lr_range(point.minibatch) for point in reached]
    label = "lr / (1 - momentum)" if search.has_momentum else "lr"
    return Figure(
        id="lr",
        title=f"The best {label}",
        caption="Of the best trial, with the range that was searched (whiskers). Dashed: the linear and the "
        "square-root rule through the smallest minibatch's.",
        x=_X,
        y=Axis(label=label, scale="log10"),
        series=(
            Series(
                name="best trial",
                x=kn,
                y=tuple(best),
                low=tuple(low for low, _ in ranges),
                high=tuple(high for _, high in ranges),
                runs=_runs(reached),
            ),
            Series(name="linear rule", x=kn, y=tuple(best[0] * b / kn[0] for b in kn), style="dashed"),
            Series(name="square-root rule", x=kn, y=tuple(best[0] * math.sqrt(b / kn[0]) for b in kn), style="dashed"),
        ),
    )


def _epochs(answer: Answer, search: Search) -> Figure:
    reached, fit = answer.reached, answer.fit
    kn, images = tuple(float(point.minibatch) for point in reached), search.training_images
    series = [
        Series(
            name="best trial",
            x=kn,
            y=tuple((point.steps or 0) * point.minibatch / images for point in reached),
            runs=_runs(reached),
        )
    ]
    if fit is not None:
        smooth = _smooth(reached)
        fitted = tuple(fit.steps(b) * b / images for b in smooth)
        series.append(Series(name="E_min (1 + B / B_crit)", x=tuple(smooth), y=fitted, style="curve"))
    return Figure(
        id="epochs",
        title=f"Epochs to {search.goal.text}",
        caption=f"Images seen until the goal, over the {images:,} training images: what the same steps cost in data. "
        "Half efficiency, where it is told: where they are twice the fewest, with its interval of 90 %.",
        x=_X,
        y=Axis(label="epochs to the goal", scale="log10"),
        series=tuple(series),
        marks=_half_mark(answer),
    )


def _half_mark(answer: Answer) -> tuple[Mark, ...]:
    """Within the minibatches that are drawn."""
    half, reached = answer.half, answer.reached
    if half.minibatch is None:
        return ()
    low, high = half.interval
    first, last = float(reached[0].minibatch), float(reached[-1].minibatch)
    return (Mark(label="half efficiency", x=max(low or first, first), x_end=min(high or last, last)),)
