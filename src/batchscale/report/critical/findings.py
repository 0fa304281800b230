"""The page of the critical minibatch: what each way says, side by side, where they disagree, what each assumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscale.records.findings import Axis, Figure, Findings, Mark, Series
from batchscale.report.critical.meetings import Meeting, meetings, trend
from batchscale.report.critical.readings import CriticalReading, CriticalSource, mean_over_run
from batchscale.report.critical.tables import ASSUMPTIONS, critical_tables
from batchscale.words import counted

KIND = "critical-minibatch"
_ADAPTIVE = ("adam", "adamw", "lamb", "muon")


def critical_findings(sources: Sequence[CriticalSource], command: Sequence[str]) -> Findings:
    """The page's content.

    Args:
        sources: of one recipe, of at least two kinds.
        command: that made it.
    """
    readings = _in_order([reading for source in sources for reading in source.readings] + list(_means(sources)))
    pairs = list(meetings(readings))
    over = [reading for reading in readings if reading.seen is None]
    kinds = list(dict.fromkeys(source.kind for source in sources))
    name = sources[0].recipe
    return Findings(
        kind=KIND,
        title=f"{name}: the critical minibatch, {counted(len(kinds), 'way')}",
        recipe=name,
        asked=f"At which minibatch does {name} need twice the fewest examples for the same progress (half efficiency, "
        f"B_crit)? By {' and by '.join(kinds)}; intervals of 90 %; steps are compared as examples seen. The largest "
        f"minibatch without loss is another thing, and stands apart.",
        answer=_answer(over, pairs, _trends(readings)),
        command=tuple(command),
        figures=_figures(sources, readings),
        tables=tuple(table for table in critical_tables(sources, readings, pairs) if table.rows),
        warnings=tuple(_warnings(sources, pairs)),
        result={
            "critical": [
                {
                    "way": reading.name,
                    "examples_seen": reading.seen,
                    "definition": "half_efficiency",
                    "minibatch": reading.minibatch,
                    "interval": [reading.low, reading.high],
                    "note": reading.note,
                }
                for reading in readings
            ],
            "comparisons": [pair.as_json() for pair in pairs],
        },
    )


def _means(sources: Sequence[CriticalSource]) -> Iterator[CriticalReading]:
    """Over the run, of all that was measured along it by one way."""
    along = {reading.name: source.minibatch for source in sources for reading in source.readings if reading.seen}
    for name, minibatch in along.items():
        together = [r for source in sources for r in source.readings if r.name == name and r.seen is not None]
        yield mean_over_run(sorted(together, key=lambda reading: reading.seen or 0.0), minibatch)


def _in_order(readings: Sequence[CriticalReading]) -> list[CriticalReading]:
    """Over the run first; then along it."""
    order = list(ASSUMPTIONS)
    return sorted(readings, key=lambda r: (r.seen is not None, r.seen or 0.0, order.index(r.kind), r.name))


def _trends(readings: Sequence[CriticalReading]) -> list[str]:
    along = [reading for reading in readings if reading.seen is not None]
    lines = (trend([r for r in along if r.name == name]) for name in dict.fromkeys(r.name for r in along))
    return [line for line in lines if line]


def _answer(over: Sequence[CriticalReading], pairs: Sequence[Meeting], trends: Sequence[str]) -> str:
    numbers = "; ".join(f"{reading.name} {reading.text}" for reading in over)
    verdict = "; ".join([*(p.text for p in pairs if p.first.seen is None and p.verdict == "disagree"), *_along(pairs)])
    if not verdict:
        compared = any(pair.verdict == "meet" for pair in pairs)
        verdict = "no two of them are told apart" if compared else "none can be compared: intervals are missing"
    lines = (f"Half efficiency over the run, in examples: {numbers}", verdict, *trends)
    return ". ".join(map(_capital, lines)) + "."


def _along(pairs: Sequence[Meeting]) -> Iterator[str]:
    """Of two ways, at how many checkpoints they disagree, and where most."""
    along = [pair for pair in pairs if pair.first.seen is not None]
    for names in dict.fromkeys((pair.first.name, pair.second.name) for pair in along):
        of_both = [pair for pair in along if (pair.first.name, pair.second.name) == names]
        apart = [pair for pair in of_both if pair.verdict == "disagree"]
        if apart:
            most = max(apart, key=lambda pair: pair.least_ratio or 0.0)
            places = f"at {len(apart)} of {counted(len(of_both), 'checkpoint')}, most"
            yield f"{' and '.join(names)} disagree {places} {most.where}{most.size}" if len(of_both) > 1 else most.text


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _figures(sources: Sequence[CriticalSource], readings: Sequence[CriticalReading]) -> tuple[Figure, ...]:
    """Half efficiency against examples seen; none where nothing was measured along the run."""
    along = [r for r in readings if r.seen and r.minibatch and r.minibatch > 0]
    series = [_series(name, [r for r in along if r.name == name]) for name in dict.fromkeys(r.name for r in along)]
    for source in sources:
        line = [(seen, scale) for seen, scale in source.line if seen > 0 and (scale is None or scale > 0)]
        if line:
            x, y = zip(*line, strict=True)
            series.append(Series(name="noise scale, lines of the run", x=x, y=y, style="curve"))
    if not series:
        return ()
    whole = [r for r in readings if r.kind == "steps to target" and r.minibatch]
    return (
        Figure(
            id="critical",
            title="The critical minibatch along the run",
            caption="Whiskers: 90 %. Horizontal: steps to target, one number over the run. Values that are not "
            "resolved are in the table alone.",
            x=Axis(label="examples seen", scale="log10"),
            y=Axis(label="half efficiency (examples)", scale="log2"),
            series=tuple(series),
            marks=tuple(Mark(label=f"{r.name}, {r.text}", y=r.minibatch) for r in whole),
        ),
    )


def _series(name: str, readings: Sequence[CriticalReading]) -> Series:
    ends = [(r.low if r.low and r.low > 0 else None, r.high) for r in readings]
    return Series(
        name=name,
        x=tuple(r.seen or 0.0 for r in readings),
        y=tuple(r.minibatch for r in readings),
        low=tuple(low for low, _ in ends),
        high=tuple(high for _, high in ends),
    )


def _warnings(sources: Sequence[CriticalSource], pairs: Sequence[Meeting]) -> Iterator[str]:
    for source in sources:
        if source.warnings:
            page = counted(source.warnings, "warning")
            yield (
                f"{source.folder} ({source.kind}): {page} on its own page: {'it' if source.warnings == 1 else 'they'} "
                f"may bear on this one"
            )
    adaptive = sources[0].entries.get("optimizer.name", "")
    if adaptive in _ADAPTIVE and any(source.kind == "noise scale" for source in sources):
        yield (
            f"optimizer.name={adaptive}: the noise scale is of plain gradients, which this optimizer rescales: it was "
            f"found too low by far late in training, with the wrong trend (Merrill et al. 2025)"
        )
    for source in sources:
        if not source.entries:
            yield f"{source.folder}: its recipe is not recorded, so nothing tells that it is the others'"
