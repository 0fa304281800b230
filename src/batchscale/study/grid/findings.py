"""A grid's answer: ways x seeds as a table, curves, and the best way beside the first one.

error of a way = mean over its seeds, none where one diverged; its spread = their standard deviation (n - 1)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from batchscale.records.findings import Axis, Figure, Findings, Series, Table
from batchscale.records.provenance import environment
from batchscale.study.evidence.curves import Curve, error_curve, loss_curve, mean_curve
from batchscale.study.evidence.instrument import lagging
from batchscale.study.evidence.quantities import error_percent, evaluated_on, point_of
from batchscale.study.runner.cell import Outcome
from batchscale.words import counted, has


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One way over its seeds.

    Args:
        outcomes: of one way.

    Returns:
        {"name", "minibatch", "lr", "evaluated_on", "mean_error_percent", "std_error_percent", "errors", "done",
        "diverged", "failed"};
        mean and spread are None where a run diverged, a mean of no run and a spread of one are too; an error is None
        of a run that diverged or has none.
    """
    first = outcomes[0].row()
    errors = [error_percent(outcome) for outcome in outcomes]
    point = point_of(first["minibatch"], errors)
    return {
        "name": first["way"],
        "minibatch": first["minibatch"],
        "lr": first["lr"],
        "evaluated_on": evaluated_on(outcomes),
        "mean_error_percent": None if math.isinf(point.mean) else point.mean,
        "std_error_percent": point.deviation(),
        "errors": [None if error is None or math.isinf(error) else error for error in errors],
        **{status: sum(o.status == status for o in outcomes) for status in ("done", "diverged", "failed")},
    }


def summaries(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Every way, in the order asked."""
    return [summary(group) for group in _by_way(outcomes).values()]


def answer_of(ways: Sequence[dict[str, Any]]) -> str:
    """The best way, and its difference to the first one with the difference's spread."""
    known = [way for way in ways if way["mean_error_percent"] is not None]
    if not known:
        return "No comparison: of every way a run diverged, or none has a result."
    best = min(known, key=lambda way: way["mean_error_percent"])
    said = f"Lowest mean {best['evaluated_on']} error: {best['name']}, {_with_spread(best)}"
    reference = ways[0]
    if reference["mean_error_percent"] is None:
        return f"{said}; the first way, {reference['name']}, has no mean: {_why_no_mean(reference)}."
    if best is reference:
        others = [way for way in known if way is not reference]
        if not others:
            return f"{said}."
        second = min(others, key=lambda way: way["mean_error_percent"])
        return f"{said}, the first way; the next best, {second['name']}, lies {_difference(second, best)} above it."
    return f"{said}; that is {_difference(reference, best)} below the first way, {reference['name']}."


def findings_of(outcomes: Sequence[Outcome], recipe_name: str, asked: str, command: Sequence[str]) -> Findings:
    """What a grid found, as a document.

    Args:
        outcomes: with the label "way", in the order asked.
        recipe_name: the recipe's name.
        asked: the question, with all that limits it.
        command: words of the command line.
    """
    ways = summaries(outcomes)
    return Findings(
        kind="grid",
        title=f"{recipe_name}: {counted(len(ways), 'way')} to train",
        recipe=recipe_name,
        asked=asked,
        answer=answer_of(ways),
        command=tuple(command),
        rows=tuple(outcome.row() for outcome in outcomes),
        figures=figures_of(outcomes),
        tables=(_table(ways, evaluated_on(outcomes)),),
        warnings=(*warnings_of(outcomes), *lagging(outcomes), *_judged_apart(ways)),
        result={"ways": ways},
        environment=environment(),
    )


def warnings_of(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Runs that failed, ways without a mean or with fewer runs than asked, and ways that train the same thing."""
    failed = [f"{o.folder.name} failed: {o.error}" for o in outcomes if o.status == "failed"]
    shared: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        shared[outcome.cell.key].append(str(outcome.cell.labels["way"]))
    same = dict.fromkeys(tuple(names) for names in shared.values() if len(names) > 1)
    return (
        *dict.fromkeys(failed),
        *_incomplete(outcomes),
        *(f"the ways {' and '.join(names)} train the same thing: they share their runs" for names in same),
    )


def _incomplete(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for way, group in _by_way(outcomes).items():
        errors = [error_percent(outcome) for outcome in group]
        if diverged := errors.count(math.inf):
            yield f"{way}: {diverged} of {counted(len(group), 'run')} diverged: no mean"
        if missing := errors.count(None):
            yield f"{way}: {missing} of {counted(len(group), 'run')} {has(missing)} no result"


def _judged_apart(ways: Sequence[dict[str, Any]]) -> Iterator[str]:
    on = {way["evaluated_on"] for way in ways if _runs(way)}
    if len(on) > 1:
        yield "the errors are of different images (data.holdout differs between the ways): they do not compare"


def figures_of(outcomes: Sequence[Outcome]) -> tuple[Figure, ...]:
    """Training loss and error against epoch: the mean over a way's runs, and from the lowest to the highest."""
    losses, errors = [], []
    for way, group in _by_way(outcomes).items():
        done = [outcome for outcome in group if outcome.status == "done"]
        losses.append(_series(way, [loss_curve(o.folder, o.cell.recipe.epochs) for o in done]))
        errors.append(_series(way, [error_curve(o.folder) for o in done]))
    caption = (
        "Mean over the seeds, with the range from the lowest to the highest, where all of them have a value; runs that "
        "diverged are left out."
    )
    made = (
        Figure(id=name, title=f"{title} of every way", caption=caption, x=Axis(label="epoch"), y=Axis(label=label),
               series=tuple(s for s in series if s.x))
        for name, title, label, series in (
            ("loss", "Training loss", "loss", losses),
            ("error", "Error", f"{evaluated_on(outcomes)} error (%)", errors),
        )
    )  # fmt: skip
    return tuple(figure for figure in made if figure.series)


def _series(way: str, curves: Sequence[Curve]) -> Series:
    mean = mean_curve(curves)
    return Series(name=way, x=mean.epochs, y=mean.values, low=mean.low, high=mean.high, style="curve")


def _by_way(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(str(outcome.cell.labels["way"]), []).append(outcome)
    return groups


def _runs(way: dict[str, Any]) -> int:
    """With a known error."""
    return sum(error is not None for error in way["errors"])


def _why_no_mean(way: dict[str, Any]) -> str:
    asked = len(way["errors"])
    return f"{way['diverged']} of {counted(asked, 'run')} diverged" if way["diverged"] else "no run has a result"


def _with_spread(way: dict[str, Any]) -> str:
    spread, runs = way["std_error_percent"], _runs(way)
    said = f"({counted(runs, 'run')})"
    return f"{way['mean_error_percent']:.2f} % " + (said if spread is None else f"+- {spread:.2f} {said}")


def _difference(higher: dict[str, Any], lower: dict[str, Any]) -> str:
    """sqrt(s_1^2 / n_1 + s_2^2 / n_2) is the standard error of a difference of means."""
    points = higher["mean_error_percent"] - lower["mean_error_percent"]
    if single := [way["name"] for way in (lower, higher) if way["std_error_percent"] is None]:
        whose = "one run a way" if len(single) == 2 else f"{single[0]} has one run"
        return f"{points:.2f} points ({whose}: no spread)"
    error = math.sqrt(sum(way["std_error_percent"] ** 2 / _runs(way) for way in (higher, lower)))
    return f"{points:.2f} points (standard error {error:.2f})"


def _table(ways: Sequence[dict[str, Any]], on: str) -> Table:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    rows = []
    for way in ways:
        each = " ".join("-" if e is None else f"{e:.2f}" for e in way["errors"])
        mean, spread = rounded(way["mean_error_percent"]), rounded(way["std_error_percent"])
        lr = float(f"{way['lr']:.6g}")
        rows.append((way["name"], way["minibatch"], lr, mean, spread, each, way["diverged"], way["failed"]))
    return Table(
        title="Ways",
        columns=(
            "way",
            "minibatch",
            "lr",
            f"mean {on} error (%)",
            "std (points)",
            "each seed (%)",
            "diverged",
            "failed",
        ),
        rows=tuple(rows),
        caption="Mean and standard deviation (n - 1) over the seeds; none where a run diverged.",
    )
