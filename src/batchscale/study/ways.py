"""A grid's answer: ways x seeds as a table, curves, and the best way beside the first one.

error of a way = mean over its seeds that are done; its spread = their standard deviation (n - 1)
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from batchscale.records.files import read_lines
from batchscale.records.findings import Axis, Figure, Findings, Series, Table
from batchscale.records.provenance import environment
from batchscale.study.cell import Outcome


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One way over its seeds.

    Args:
        outcomes: of one way.

    Returns:
        {"name", "minibatch", "lr", "mean_error_percent", "std_error_percent", "errors", "done", "diverged", "failed"};
        a mean of no run and a spread of one are None.
    """
    first = outcomes[0].row()
    rows = [outcome.row() for outcome in outcomes]
    done = [r["test_error_percent"] for r in rows if r["status"] == "done" and r["test_error_percent"] is not None]
    return {
        "name": first["way"],
        "minibatch": first["minibatch"],
        "lr": first["lr"],
        "mean_error_percent": statistics.fmean(done) if done else None,
        "std_error_percent": statistics.stdev(done) if len(done) > 1 else None,
        "errors": [r["test_error_percent"] if r["status"] == "done" else None for r in rows],
        **{status: sum(r["status"] == status for r in rows) for status in ("done", "diverged", "failed")},
    }


def summaries(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Every way, in the order asked."""
    return [summary(group) for group in _by_way(outcomes).values()]


def answer_of(ways: Sequence[dict[str, Any]]) -> str:
    """The best way, and its difference to the first one with the difference's spread."""
    known = [way for way in ways if way["mean_error_percent"] is not None]
    if not known:
        return "No run came to its end with an error measured."
    best = min(known, key=lambda way: way["mean_error_percent"])
    said = f"Lowest mean error: {best['name']}, {_with_spread(best)}"
    reference = ways[0]
    if reference["mean_error_percent"] is None:
        return f"{said}; the first way, {reference['name']}, came to no error."
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
        title=f"{recipe_name}: {len(ways)} ways to train",
        recipe=recipe_name,
        asked=asked,
        answer=answer_of(ways),
        command=tuple(command),
        rows=tuple(outcome.row() for outcome in outcomes),
        figures=figures_of(outcomes),
        tables=(_table(ways),),
        warnings=warnings_of(outcomes),
        result={"ways": ways},
        environment=environment(),
    )


def warnings_of(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Runs that failed, and ways that train the same thing."""
    failed = [f"{o.folder.name} failed: {o.error}" for o in outcomes if o.status == "failed"]
    shared: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        shared[outcome.cell.key].append(str(outcome.cell.labels["way"]))
    same = dict.fromkeys(tuple(names) for names in shared.values() if len(names) > 1)
    return (
        *dict.fromkeys(failed),
        *(f"the ways {' and '.join(names)} train the same thing: they share their runs" for names in same),
    )


def figures_of(outcomes: Sequence[Outcome]) -> tuple[Figure, ...]:
    """Training loss and error against epoch: the mean over a way's runs, and from the lowest to the highest."""
    lines = {
        "loss": ("metrics.jsonl", "loss", "Training loss", "loss"),
        "error": ("evaluations.jsonl", "error_percent", "Error", "error (%)"),
    }
    figures = []
    for name, (file, entry, title, label) in lines.items():
        series = [_curve(way, group, file, entry) for way, group in _by_way(outcomes).items()]
        kept = tuple(s for s in series if s.x)
        caption = "Mean over the seeds, with the range from the lowest to the highest."
        if kept:
            figures.append(
                Figure(id=name, title=f"{title} of every way", caption=caption, x=Axis(label="epoch"),
                       y=Axis(label=label), series=kept)
            )  # fmt: skip
    return tuple(figures)


def _curve(way: str, group: Sequence[Outcome], file: str, entry: str) -> Series:
    at: dict[float, list[float]] = defaultdict(list)
    for outcome in group:
        for line in read_lines(outcome.folder / file):
            if isinstance(line.get(entry), int | float) and "epoch" in line:
                at[float(line["epoch"])].append(float(line[entry]))
    epochs = sorted(at)
    return Series(
        name=way,
        x=tuple(epochs),
        y=tuple(statistics.fmean(at[e]) for e in epochs),
        low=tuple(min(at[e]) for e in epochs),
        high=tuple(max(at[e]) for e in epochs),
        style="curve",
    )


def _by_way(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(str(outcome.cell.labels["way"]), []).append(outcome)
    return groups


def _with_spread(way: dict[str, Any]) -> str:
    spread = way["std_error_percent"]
    runs = f"{way['done']} run{'s' if way['done'] > 1 else ''}"
    return f"{way['mean_error_percent']:.2f} %" + (f" ({runs})" if spread is None else f" +- {spread:.2f} ({runs})")


def _difference(higher: dict[str, Any], lower: dict[str, Any]) -> str:
    """sqrt(s_1^2 / n_1 + s_2^2 / n_2) is the standard error of a difference of means."""
    points = higher["mean_error_percent"] - lower["mean_error_percent"]
    if higher["std_error_percent"] is None or lower["std_error_percent"] is None:
        return f"{points:.2f} points (one run a way: no spread)"
    error = math.sqrt(sum(way["std_error_percent"] ** 2 / way["done"] for way in (higher, lower)))
    return f"{points:.2f} points (standard error {error:.2f})"


def _table(ways: Sequence[dict[str, Any]]) -> Table:
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
        columns=("way", "minibatch", "lr", "mean error (%)", "std (points)", "each seed (%)", "diverged", "failed"),
        rows=tuple(rows),
        caption="Mean and standard deviation are of the runs that came to their end.",
    )
