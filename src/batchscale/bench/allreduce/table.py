"""The document of ``bench allreduce`` as aligned tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchscale.bench.allreduce.rows import size_text
from batchscale.records.findings import Table
from batchscale.records.text import as_text
from batchscale.words import counted

_NOT_MEASURABLE = (
    "not measurable now: the iqr is over a tenth of the ratio, so take it as an order; a quieter machine, "
    "or more --seconds, narrows it"
)


def as_table(document: Mapping[str, Any]) -> str:
    """Times, bandwidths, the choice against the backend, the fit, conditions and notes, as lines of text."""
    processes, conditions = document["processes"], document["conditions"]
    parts = [
        f"all-reduce of float32 over {counted(processes, 'process')} of {counted(conditions['threads'], 'thread')} on "
        f"{counted(conditions['cores'], 'core')}",
        _by_size("milliseconds", document["rows"], lambda row: _three(1e3 * row["seconds"])),
        _by_size("bus bandwidth, GB/s", document["rows"], lambda row: _three(row["bus_gigabytes_per_second"])),
        _by_size("share of the limit", document["rows"], lambda row: f"{100 * row['share_of_limit']:.1f} %"),
        _limit_text(document["limit"], processes),
        _auto_text(document["auto"]),
        _fit_text(document["fit"]),
        _condition_text(document),
    ]
    return "\n\n".join(parts)


def _three(value: float) -> str:
    """Three digits that count, without an exponent: 0.0412, 17.6, 446."""
    digits = 2
    while digits and value >= 10 ** (3 - digits):
        digits -= 1
    return f"{value:.{digits}f}" if value >= 0.1 else f"{value:.4f}"


def _by_size(title: str, rows: Sequence[Mapping[str, Any]], text: Callable[[Mapping[str, Any]], str]) -> str:
    """A line for every algorithm and a column for every size."""
    sizes = sorted({row["bytes"] for row in rows})
    names = dict.fromkeys(row["algorithm"] for row in rows)
    cells = {(row["algorithm"], row["bytes"]): text(row) for row in rows}
    lines = tuple((name, *(cells[name, size] for size in sizes)) for name in names)
    return as_text(Table(title="", columns=(title, *map(size_text, sizes)), rows=lines))


def _limit_text(limit: Sequence[Mapping[str, Any]], processes: int) -> str:
    words = {
        "one_gigabytes_per_second": "one alone",
        "each_gigabytes_per_second": f"each of {processes} (limit)",
        "all_gigabytes_per_second": f"all {processes} together",
    }
    rows = [
        {"algorithm": text, "bytes": entry["bytes"], "value": entry[key]}
        for key, text in words.items()
        for entry in limit
    ]
    return _by_size("copying, GB/s", rows, lambda row: _three(row["value"]))


def _auto_text(auto: Sequence[Mapping[str, Any]]) -> str:
    columns = ("auto, timed afresh", "", "ms", "shipped", "tuned", "shipped / auto", "iqr", "tuned / auto", "iqr", "")
    times = ("seconds", "builtin_seconds", "builtin_tuned_seconds")
    ratios = ("builtin_to_auto", "builtin_to_auto_iqr", "builtin_tuned_to_auto", "builtin_tuned_to_auto_iqr")
    rows = tuple(
        (
            size_text(row["bytes"]),
            row["algorithm"],
            *(_three(1e3 * row[key]) for key in times),
            *(f"{row[key]:.2f}" for key in ratios),
            "not measurable now" if row["not_measurable_now"] else "",
        )
        for row in auto
    )
    text = as_text(Table(title="", columns=columns, rows=rows))
    return f"{text}\n{_NOT_MEASURABLE}" if any(row["not_measurable_now"] for row in auto) else text


def _fit_text(fits: Mapping[str, Mapping[str, Any]]) -> str:
    microseconds, nanoseconds_a_kilobyte = 1e6, 1e9 * 1024
    rows = tuple(
        (
            name,
            _three(microseconds * fit["alpha_seconds"]),
            _error(fit["alpha_standard_error"], microseconds),
            _three(nanoseconds_a_kilobyte * fit["beta_seconds_per_byte"]),
            _error(fit["beta_standard_error"], nanoseconds_a_kilobyte),
            f"{100 * fit['largest_relative_residual']:.0f} %",
        )
        for name, fit in fits.items()
    )
    columns = ("fit", "alpha, us/step", "+-", "beta, ns/KB", "+-", "largest error")
    return as_text(Table(title="", columns=columns, rows=rows))


def _error(error: float | None, scale: float) -> str:
    return "held" if error is None else _three(scale * error)


def _condition_text(document: Mapping[str, Any]) -> str:
    conditions, choice = document["conditions"], document["choice"]
    lines = [
        f"{conditions['date']}, {conditions['cpu']}, {counted(conditions['cores'], 'core')}, "
        f"load {conditions['load_average']:g}, torch {conditions['torch']}",
        f"{counted(conditions['rounds'], 'round')} of algorithms, {conditions['auto_rounds']} of auto; medians; ratios "
        f"are of paired rounds",
        *([f"the choice is stored in {choice['file']}"] if choice["file"] else []),
        *(f"note: {note}" for note in document["notes"]),
    ]
    return "\n".join(lines)
