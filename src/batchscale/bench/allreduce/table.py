"""The document of ``bench allreduce`` as aligned tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchscale.bench.allreduce.rows import size_text
from batchscale.words import counted

_NAME, _CELL = 20, 8


def as_table(document: Mapping[str, Any]) -> str:
    """Times, bandwidths, the choice against the backend, the fit, conditions and notes, as lines of text."""
    processes, at = document["processes"], document["conditions"]
    parts = [
        [
            f"all-reduce of float32 over {counted(processes, 'process')} of {counted(at['threads'], 'thread')} on "
            f"{counted(at['cores'], 'core')}"
        ],
        _by_size("milliseconds", document["rows"], lambda row: _three(1e3 * row["seconds"])),
        _by_size("bus bandwidth, GB/s", document["rows"], lambda row: _three(row["bus_gigabytes_per_second"])),
        _by_size("share of the limit", document["rows"], lambda row: f"{100 * row['share_of_limit']:.1f} %"),
        _limit_lines(document["limit"], processes),
        _auto_lines(document["auto"]),
        _fit_lines(document["fit"]),
        _condition_lines(document),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def _three(value: float) -> str:
    """Three digits that count, without an exponent: 0.0412, 17.6, 446."""
    digits = 2
    while digits and value >= 10 ** (3 - digits):
        digits -= 1
    return f"{value:.{digits}f}" if value >= 0.1 else f"{value:.4f}"


def _by_size(title: str, rows: Sequence[Mapping[str, Any]], text: Callable[[Mapping[str, Any]], str]) -> list[str]:
    sizes = sorted({row["bytes"] for row in rows})
    names = dict.fromkeys(row["algorithm"] for row in rows)
    cells = {(row["algorithm"], row["bytes"]): text(row) for row in rows}
    return [
        f"{title:<{_NAME}}" + "".join(f"{size_text(size):>{_CELL}}" for size in sizes),
        *(f"{name:<{_NAME}}" + "".join(f"{cells[name, size]:>{_CELL}}" for size in sizes) for name in names),
    ]


def _limit_lines(limit: Sequence[Mapping[str, Any]], processes: int) -> list[str]:
    said = {
        "one_gigabytes_per_second": "one alone",
        "each_gigabytes_per_second": f"each of {processes} (limit)",
        "all_gigabytes_per_second": f"all {processes} together",
    }
    rows = [
        {"algorithm": text, "bytes": entry["bytes"], "value": entry[key]}
        for key, text in said.items()
        for entry in limit
    ]
    return _by_size("copying, GB/s", rows, lambda row: _three(row["value"]))


def _auto_lines(auto: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{'auto, timed afresh':<20}{'':<18}{'ms':>8}{'shipped':>10}{'tuned':>9}{'shipped / auto':>17}{'iqr':>7}"
        f"{'tuned / auto':>15}{'iqr':>7}",
        *(
            f"{size_text(row['bytes']):<20}{row['algorithm']:<18}{_three(1e3 * row['seconds']):>8}"
            f"{_three(1e3 * row['builtin_seconds']):>10}{_three(1e3 * row['builtin_tuned_seconds']):>9}"
            f"{row['builtin_to_auto']:>17.2f}{row['builtin_to_auto_iqr']:>7.2f}"
            f"{row['builtin_tuned_to_auto']:>15.2f}{row['builtin_tuned_to_auto_iqr']:>7.2f}"
            f"{'  not measurable now' if row['not_measurable_now'] else ''}"
            for row in auto
        ),
        *(
            [
                "not measurable now: the iqr is over a tenth of the ratio, so take it as an order; a quieter machine, "
                "or more --seconds, narrows it"
            ]
            if any(row["not_measurable_now"] for row in auto)
            else []
        ),
    ]


def _fit_lines(fits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [f"{'fit':<20}{'alpha, us/step':>16}{'+-':>9}{'beta, ns/KB':>14}{'+-':>9}{'largest error':>16}"]
    for name, fit in fits.items():
        alpha, beta = 1e6 * fit["alpha_seconds"], 1e9 * 1024 * fit["beta_seconds_per_byte"]
        errors = (fit["alpha_standard_error"], 1e6), (fit["beta_standard_error"], 1e9 * 1024)
        said = ["held" if error is None else _three(scale * error) for error, scale in errors]
        lines.append(
            f"{name:<20}{_three(alpha):>16}{said[0]:>9}{_three(beta):>14}{said[1]:>9}"
            f"{100 * fit['largest_relative_residual']:>14.0f} %"
        )
    return lines


def _condition_lines(document: Mapping[str, Any]) -> list[str]:
    at, choice = document["conditions"], document["choice"]
    return [
        f"{at['date']}, {at['cpu']}, {counted(at['cores'], 'core')}, load {at['load_average']:g}, torch {at['torch']}",
        f"{counted(at['rounds'], 'round')} of algorithms, {at['auto_rounds']} of auto; medians; ratios are of "
        f"paired rounds",
        *([f"the choice is stored in {choice['file']}"] if choice["file"] else []),
        *(f"note: {note}" for note in document["notes"]),
    ]
