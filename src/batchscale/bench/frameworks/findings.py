"""The document of ``bench frameworks`` -> findings: who is faster where, and what the minibatch costs. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from batchscale.bench.documents import FrameworkRow, FrameworksDocument
from batchscale.bench.frameworks.answer import answer_of
from batchscale.records.findings import Axis, Figure, Findings, Series, Table
from batchscale.words import counted

_ASKED = (
    "Who trains this net faster over W processes of one thread, and does accuracy fall with the minibatch alike? All "
    "frameworks in turn, from the same weights on the same examples; one training run a point."
)
_SERIES = ("weak", "strong")


def findings_of_frameworks(document: FrameworksDocument) -> Findings:
    """What was found; the document itself is the result."""
    command = ("batchscale", "bench", "frameworks", document.recipe, *document.overrides)
    processes = ",".join(map(str, document.processes))
    return Findings(
        kind="bench",
        title=f"Frameworks on {document.recipe}, {processes} processes",
        recipe=document.recipe,
        asked=_ASKED,
        answer=answer_of(document),
        command=(*command, "--processes", processes, "--epochs", str(document.epochs), "--json"),
        figures=tuple(figure for figure in _figures(document) if figure.series),
        tables=tables_of(document),
        warnings=_warnings(document),
        result=document.model_dump(mode="json"),
        environment=document.conditions,
    )


def _warnings(document: FrameworksDocument) -> tuple[str, ...]:
    crowded = [f"{count} processes share {document.conditions.get('cores')} cores" for count in document.oversubscribed]
    return (*(f"oversubscribed: {words}" for words in crowded), *document.notes)


def _figures(document: FrameworksDocument) -> tuple[Figure, ...]:
    word, score = document.conditions.get("examples", "examples"), document.score
    unit = f", {score['unit']}" if score["unit"] else ""
    trained = counted(document.epochs, "epoch")
    processes, scored = Axis(label="processes, W", scale="log2"), Axis(label=f"{score['name']}{unit}")
    minibatch, gpus = Axis(label="minibatch, kn", scale="log2"), Axis(label="GPUs", scale="log2")
    names, rows = list(dict.fromkeys(row.name for row in document.rows)), document.rows
    return (
        *(
            Figure(
                id=f"speed-{series}", title=f"{str(word).capitalize()} per second, {series} series",
                caption="Medians of paired rounds; the band is as wide as the interquartile range.",
                x=processes, y=Axis(label=f"{word}/s"), series=_speeds(rows, names, series),
            )
            for series in _SERIES
        ),
        Figure(
            id="efficiency", title="Efficiency, weak series",
            caption="Speed over W processes / (W x that of one).",
            x=processes, y=Axis(label="efficiency"),
            series=_lines(rows, names, "weak", lambda row: row.processes, lambda row: row.efficiency),
        ),
        Figure(
            id="score", title=f"Minibatch and {score['name']}, weak series",
            caption=f"Of the test set after {trained}, by the recipe's rules; one run a point.",
            x=minibatch, y=scored,
            series=_lines(rows, names, "weak", lambda row: row.minibatch, lambda row: row.score),
        ),
        Figure(
            id="published-efficiency", title="Efficiency as published: U-Nets on V100 GPUs",
            caption="seconds(1) / (W seconds(W)) of an epoch, 16 images a GPU.",
            x=gpus, y=Axis(label="efficiency"), series=_published(document.published, "processes", "efficiency"),
        ),
        Figure(
            id="published-score", title="Minibatch and IoU as published",
            caption="Adam, lr x GPUs, no warmup; one run a point; PyTorch's IoU is of one shard of the test set.",
            x=minibatch, y=Axis(label="IoU, %"), series=_published(document.published, "minibatch", "score"),
        ),
    )  # fmt: skip


def _speeds(rows: Sequence[FrameworkRow], names: Sequence[str], series: str) -> tuple[Series, ...]:
    lines = []
    for name in names:
        points = [row for row in rows if (row.name, row.series) == (name, series)]
        if points:
            lines.append(
                Series(
                    name=name,
                    x=tuple(row.processes for row in points),
                    y=tuple(row.examples_per_second for row in points),
                    low=tuple(row.examples_per_second - row.iqr / 2 for row in points),
                    high=tuple(row.examples_per_second + row.iqr / 2 for row in points),
                )
            )
    return tuple(lines)


def _lines(
    rows: Sequence[FrameworkRow],
    names: Sequence[str],
    series: str,
    x: Callable[[FrameworkRow], float],
    y: Callable[[FrameworkRow], float | None],
) -> tuple[Series, ...]:
    parted = {name: [row for row in rows if (row.name, row.series) == (name, series)] for name in names}
    known = {name: [row for row in points if y(row) is not None] for name, points in parted.items()}
    return tuple(
        Series(name=name, x=tuple(map(x, points)), y=tuple(map(y, points))) for name, points in known.items() if points
    )


def _published(rows: Sequence[dict[str, Any]], x: str, y: str) -> tuple[Series, ...]:
    names = dict.fromkeys(row["framework"] for row in rows)
    parted = {name: [row for row in rows if row["framework"] == name] for name in names}
    return tuple(
        Series(name=name, x=tuple(row[x] for row in points), y=tuple(row[y] for row in points))
        for name, points in parted.items()
    )


def tables_of(document: FrameworksDocument) -> tuple[Table, ...]:
    """Measured, proved, published."""
    word, score = document.conditions.get("examples", "examples"), document.score
    unit = f", {score['unit']}" if score["unit"] else ""
    trained = counted(document.epochs, "epoch")
    measured = Table(
        title="Measured",
        columns=(
            "series", "W", "minibatch", "framework", f"{word}/s", "iqr", f"{word}/CPU-s", "s an epoch", "efficiency",
            "to batchscale", "iqr", "loss", f"{score['name']}{unit}",
        ),
        rows=tuple(
            (
                r.series, r.processes, r.minibatch, r.name, r.examples_per_second, r.iqr, r.examples_per_cpu_second,
                r.seconds_per_epoch, r.efficiency, r.ratio, r.ratio_iqr, r.loss, r.score,
            )
            for r in sorted(document.rows, key=lambda row: (_SERIES.index(row.series), row.processes))
        ),
        caption=(
            f"Speeds are medians of rounds in turn; loss and {score['name']} after {trained}, one run. "
            f"An efficiency compares two times of day."
        ),
    )  # fmt: skip
    proved = Table(
        title="The same work: ten losses from the same weights, beside batchscale's",
        columns=("W", "optimizer", "framework", "largest difference", "tolerance", "agrees"),
        rows=tuple(
            (
                a.processes, a.optimizer, a.name,
                None if a.largest_difference is None else float(f"{a.largest_difference:.2g}"), a.tolerance,
                "yes" if a.agrees else "no",
            )
            for a in document.agreement
        ),
    )  # fmt: skip
    published = Table(
        title="Published: U-Nets on 1,120 micrographs, V100 GPUs, 16 images each",
        columns=("framework", "GPUs", "minibatch", "s an epoch", "efficiency", "loss", "IoU, %"),
        rows=tuple(tuple(row.values()) for row in document.published),
    )
    return (measured, proved, published)
