"""The answer of ``bench frameworks`` in one sentence with figures: who is faster where, what the minibatch costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchscale.bench.documents import FrameworkRow, FrameworksDocument


def answer_of(document: FrameworksDocument) -> str:
    """Speed over the most processes with a core each, then the score from the smallest minibatch to the largest."""
    crowded = set(document.oversubscribed)
    places = sorted({row.processes for row in document.rows}, key=lambda count: (count not in crowded, count))
    clauses = [_speed(document, series, places[-1]) for series in ("weak", "strong")]
    clauses = [clause for clause in (*clauses, _score(document)) if clause]
    sentence = "; ".join(clauses)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _speed(document: FrameworksDocument, series: str, processes: int) -> str:
    rows = [row for row in document.rows if (row.series, row.processes) == (series, processes)]
    if not rows:
        return ""
    rows.sort(key=lambda row: -row.examples_per_second)
    word = document.conditions.get("examples", "examples")
    first, *others = rows
    behind = ", ".join(f"{row.name} {row.examples_per_second:,.0f}" for row in others)
    crowded = " (oversubscribed)" if processes in document.oversubscribed else ""
    return (
        f"{series} series, W = {processes}{crowded}: {first.name} is fastest with {first.examples_per_second:,.0f} "
        f"{word}/s{f' before {behind}' if behind else ''}"
    )


def _score(document: FrameworksDocument) -> str:
    """How the score moves with the minibatch in every framework, and whether they differ by less than that."""
    changes, sizes = score_changes(document.rows)
    if not changes:
        return ""
    name, unit = document.score["name"], document.score["unit"]
    each = ", ".join(f"{change:+.2f} ({key})" for key, change in changes.items())
    words = f"from a minibatch of {sizes[0]:,} to {sizes[1]:,} the {name} moves by {each} {unit or 'units'}"
    return f"{words}{_verdict(changes, document.score['better'])}" if len(changes) > 1 else words


def _verdict(changes: Mapping[str, float], better: str) -> str:
    worse = [change if better == "lower" else -change for change in changes.values()]
    apart = max(worse) - min(worse)
    if min(worse) > 0 and apart < min(worse):
        return f", alike to {apart:.2f}: it is the minibatch, not the framework, that costs it"
    if min(worse) > 0:
        return f": worse in every framework, but they differ by {apart:.2f}, which one run each cannot explain"
    if max(worse) <= 0:
        return ": none loses by it"
    return f": not the same way in every framework, which differ by {apart:.2f}; one run each cannot tell why"


def score_changes(rows: Sequence[FrameworkRow]) -> tuple[dict[str, float], tuple[int, int]]:
    """(framework -> score at the largest minibatch - score at the smallest, (smallest, largest)), of the weak series.

    Only frameworks that have both.
    """
    scored = {(row.name, row.minibatch): row.score for row in rows if row.series == "weak" and row.score is not None}
    sizes = sorted({size for _, size in scored})
    if len(sizes) < 2:
        return {}, (0, 0)
    small, large = sizes[0], sizes[-1]
    names = dict.fromkeys(name for name, _ in scored)
    both = [name for name in names if {(name, small), (name, large)} <= scored.keys()]
    return {name: (scored[name, large] or 0.0) - (scored[name, small] or 0.0) for name in both}, (small, large)
