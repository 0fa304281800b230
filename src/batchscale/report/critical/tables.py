"""The tables of the page: every way's numbers, where they disagree, and what each way measures and assumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscale.records.findings import Table
from batchscale.report.critical.meetings import Meeting
from batchscale.report.critical.readings import CriticalReading, CriticalSource
from batchscale.report.critical.recipes import differences

ASSUMPTIONS = {
    "steps to target": (
        "the fewest steps to a goal at each minibatch, every one with settings of its own; B_crit of "
        "S_min (1 + B_crit / B)",
        "that the curve has this form, and that the search was as lucky at every minibatch; one number over the run, "
        "of one goal",
        "dear: trials x minibatches whole runs",
    ),
    "branches": (
        "from a checkpoint, the minibatch at which twice the fewest examples are needed for the same loss",
        "that the trunk's lr is right for its minibatch, that the lr's rule is, and that the window is longer than "
        "what the change itself stirs up",
        "factors x seeds x window, from checkpoints of one run",
    ),
    "noise scale": (
        "tr S / |G|^2 of the gradient at the weights of one run; no loss is looked at",
        "plain SGD, one small step, curvature alike in all directions; under Adam, momentum or batch norm it is no "
        "prediction of half efficiency",
        "one run and some norms, or some passes at a checkpoint",
    ),
}
"""Kind of way: what it measures, what it assumes, what it costs."""


def critical_tables(
    sources: Sequence[CriticalSource], readings: Sequence[CriticalReading], pairs: Sequence[Meeting]
) -> Iterator[Table]:
    """In the order of reading; some may be empty.

    Args:
        sources: of one recipe.
        readings: of all of them, and means, in order.
        pairs: of ways.
    """
    parts, each = next((source.parts for source in sources if source.parts[0]), ("", 1))
    over, along = ([r for r in readings if (r.seen is None) is whole] for whole in (True, False))
    yield _readings_table(
        "Half efficiency over the run",
        "Steps to target is one number over a run; beside it the mean of what was measured along the run, each value "
        "weighted by the steps that its stretch takes at the least; and a noise scale averaged over a run's steps.",
        over, parts, each,
    )  # fmt: skip
    yield _readings_table(
        "Half efficiency along the run",
        "Of branches, twice the fewest examples there are, as of the others; twice "
        "factor 1's is what they measure, 2 kn above.",
        along,
        parts,
        each,
    )
    yield Table(
        title="Where they agree and disagree",
        columns=("where", "one way", "the other", "ratio", "intervals", "apart by at least"),
        rows=tuple(_pair_row(pair) for pair in pairs),
        caption="Disagree: intervals of 90 % that do not meet. Where they meet, nothing tells the two apart.",
    )
    yield Table(
        title="The largest minibatch without loss",
        columns=("way", "examples seen", "without loss up to", "shown to be worse", "note"),
        rows=tuple(
            (n.name, _rounded(n.seen), _rounded(n.largest), _rounded(n.worse), n.note)
            for s in sources
            for n in s.no_loss
        ),
        caption="Not the critical minibatch, and far below it: the loss is not above the reference's by more than the "
        "study's tolerance.",
    )
    yield from _of_sources(sources)


def _of_sources(sources: Sequence[CriticalSource]) -> Iterator[Table]:
    kinds = dict.fromkeys(source.kind for source in sources)
    yield Table(
        title="What each way measures and assumes",
        columns=("way", "measures", "assumes", "costs"),
        rows=tuple((kind, *ASSUMPTIONS[kind]) for kind in kinds),
    )
    yield Table(
        title="Where their recipes differ",
        columns=("entry", *(str(source.folder) for source in sources)),
        rows=tuple(differences(sources)),
        caption="A study's are those that its runs start from: it searches some, and sets others of its own.",
    )


def _readings_table(title: str, caption: str, readings: Sequence[CriticalReading], parts: str, each: int) -> Table:
    """A column only where something stands in it."""
    columns: dict[str, list[str] | list[float | int | None]] = {
        "way": [r.name for r in readings],
        "examples seen": [_rounded(r.seen) for r in readings],
        "examples": [_rounded(r.minibatch) for r in readings],
        parts: [_rounded(r.minibatch and each * r.minibatch) for r in readings] if parts else [],
        "low": [_rounded(r.low) for r in readings],
        "high": [_rounded(r.high) for r in readings],
        "twice factor 1's": [_rounded(r.twice_first) for r in readings],
        "note": [r.note or ("not resolved" if r.minibatch is None else "") for r in readings],
    }
    drawn = {name: cells for name, cells in columns.items() if any(cell not in (None, "") for cell in cells)}
    return Table(
        title=title,
        columns=tuple(drawn),
        rows=tuple(zip(*drawn.values(), strict=True)),
        caption=f"{caption} Low and high: 90 %; an empty cell: no bound, or no value.",
    )


def _pair_row(pair: Meeting) -> tuple[str | float | None, ...]:
    intervals = {"disagree": "do not meet", "meet": "meet", "not told": "missing"}[pair.verdict]
    gap = pair.as_json()["least_ratio"]
    return pair.where, pair.first.name, pair.second.name, _rounded(pair.ratio), intervals, _rounded(gap)


def _rounded(value: float | None) -> float | int | None:
    if value is None:
        return None
    short = float(f"{value:.3g}") if abs(value) < 1000 else round(value)
    return int(short) if short == int(short) else short
