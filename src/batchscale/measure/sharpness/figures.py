"""The sharpness of runs, as tables and figures, all runs on one scale; and as numbers of a run's page."""

from __future__ import annotations

from batchscale.measure.sharpness.answer import Answer, OfRun
from batchscale.measure.sharpness.sharpness import Sharpness
from batchscale.measure.sharpness.words import FORMS, percent, space_words
from batchscale.records.findings import Axis, Figure, Scale, Series, Table
from batchscale.records.measured import MeasuredNumber


def figures(answer: Answer) -> list[Figure]:
    """A figure a form: runs below each other."""
    values = [value for run in answer.runs for number in run.numbers for value in (number.value, *_reach(number))]
    scale: Scale = "log10" if min(values) > 0 else "linear"
    return [_figure(answer, form, scale) for form in answer.searched.forms]


def _figure(answer: Answer, form: str, scale: Scale) -> Figure:
    columns: dict[tuple[int | None, float], list[Sharpness]] = {}
    for run in answer.runs:
        for number in run.numbers:
            if number.form == form:
                columns.setdefault((number.subspace, number.epsilon), []).append(number)
    return Figure(
        id=f"sharpness-{form}",
        title=f"Sharpness, {FORMS[form]}",
        caption=f"A point a run; whiskers: {100 * answer.searched.level:g} % intervals of the mean over subspaces.",
        x=Axis(label="sharpness, %", scale=scale),
        y=Axis(label="run", names=tuple(run.name for run in answer.runs)),
        series=tuple(_series(numbers) for numbers in columns.values()),
    )


def _series(numbers: list[Sharpness]) -> Series:
    intervals = [_reach(number) for number in numbers] if numbers[0].interval else []
    return Series(
        name=f"{space_words(numbers[0])}, epsilon {numbers[0].epsilon:g}",
        x=tuple(number.value for number in numbers),
        y=tuple(range(1, len(numbers) + 1)),
        low=tuple(low for low, _ in intervals),
        high=tuple(high for _, high in intervals),
        style="points",
    )


def _reach(number: Sharpness) -> tuple[float, float]:
    return number.interval or (number.value, number.value)


def tables(answer: Answer) -> list[Table]:
    """Every number, and the runs with their test figures."""
    columns = ("run", "form", "space", "epsilon", "sharpness, %", "low", "high", "iterations", "at their limit")
    rows = tuple(_row(run, number) for run in answer.runs for number in run.numbers)
    caption = (
        f"Of subspaces the mean, with its interval of {100 * answer.searched.level:g} % over "
        f"{answer.searched.repeats} draws; `at their limit`: searches that ended by the limit of iterations."
    )
    head = (
        "run",
        "minibatch",
        "step",
        f"loss of {answer.examples} training {answer.noun}",
        "test loss",
        answer.score.key,
    )
    runs = tuple(
        (run.name, run.minibatch, run.step, percent(run.loss), percent(run.test_loss), percent(run.test_score))
        for run in answer.runs
    )
    return [
        Table(title="Sharpness", columns=columns, rows=rows, caption=caption),
        Table(title="The runs", columns=head, rows=runs, caption="At the weights whose sharpness was measured."),
    ]


def numbers(answer: Answer) -> list[MeasuredNumber]:
    """Every number of one run, or of each of its parts: a line each."""
    return [
        MeasuredNumber(
            f"{number.form}, {space_words(number)}, epsilon {number.epsilon:g}{f' of {run.part}' if run.part else ''}",
            "sharpness, %",
            number.value,
            *(number.interval or (None, None)),
        )
        for run in answer.runs
        for number in run.numbers
    ]


def _row(run: OfRun, number: Sharpness) -> tuple[str | float | int | None, ...]:
    iterations = sorted({search.iterations for search in number.searches})
    ends = (None, None) if number.interval is None else tuple(percent(end) for end in number.interval)
    taken = f"{iterations[0]} to {iterations[-1]}" if len(iterations) > 1 else iterations[0]
    limited = f"{number.limited} of {len(number.searches)}"
    return (run.name, number.form, space_words(number), number.epsilon, percent(number.value), *ends, taken, limited)
