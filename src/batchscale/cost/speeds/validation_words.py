"""`plan validate` in words and tables, beside its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from batchscale.cost.speeds.baseline import RULE_PERCENT
from batchscale.cost.speeds.priors import MEANING, RANGES, Priors
from batchscale.cost.speeds.small_form import COVERAGE_PERCENT
from batchscale.cost.speeds.validate import Validation, document
from batchscale.records.findings import Findings, Table
from batchscale.words import counted

_CALIBRATED = {
    "two": "the two smallest device counts of at least one host",
    "host": "the device counts inside one host",
}


def validation_findings(validation: Validation, command: Sequence[str]) -> Findings:
    """All that `plan validate` says.

    Args:
        validation: what it found.
        command: words of the command line.
    """
    result = document(validation)
    return Findings(
        kind="plan-validate",
        title="Speed predicted against measured",
        recipe="",
        asked=(
            f"How well do {_CALIBRATED[validation.mode]} of a series predict its speed at the others? "
            f"{len(validation.judged)} series, {counted(validation.predicted, 'point')}; priors that have not seen the "
            f"series' source."
        ),
        answer=_answer(result),
        command=tuple(command),
        rows=tuple(result["rows"]),
        tables=tuple(_tables(validation, result)),
        warnings=tuple(result["warnings"]),
        result=result,
    )


def _answer(result: dict[str, Any]) -> str:
    if not result["points"]:
        return f"Nothing predicted: none of the {result['eligible']} eligible points could be."
    worse = result["worse_than_baseline"]
    return (
        f"{result['points']} of {result['eligible']} points predicted: median error "
        f"{_with_interval(result, 'median_error')}, nine of ten within {_with_interval(result, 'p90_error')}, "
        f"{_with_interval(result, 'coverage', 0)} in their {COVERAGE_PERCENT} % interval; worse than the baseline on "
        f"{worse['series']} of {worse['of']} series."
    )


def _with_interval(result: dict[str, Any], name: str, digits: int = 1) -> str:
    low, high = result[f"{name}_interval"]
    return f"{result[f'{name}_percent']:.{digits}f} % ({low:.{digits}f} to {high:.{digits}f})"


def _tables(validation: Validation, result: dict[str, Any]) -> Iterator[Table]:
    if result["points"]:
        yield Table(
            title="Three ways",
            columns=("way", "median error %", "90 % within"),
            rows=tuple(
                (name, f"{scores['median_error_percent']:.2f}", f"{scores['p90_error_percent']:.1f}")
                for name, scores in (
                    ("the small form with priors", result),
                    ("baseline: T(d) = a + b (1 - 1/d)", result["baseline"]),
                    (f"rule: {RULE_PERCENT:g} % slower per doubling", result["rule"]),
                )
            ),
        )
        yield Table(
            title="Points",
            columns=("system", "model", "batch", "precision", "devices", "measured", "predicted", "90 % interval",
                     "error %", "baseline's %"),
            rows=tuple(map(_cells, result["rows"])),
        )  # fmt: skip
    if validation.refused:
        yield Table(
            title="Refused",
            columns=("series", "devices", "reason"),
            rows=tuple(
                (series.name.text, " ".join(map(str, parts.others.devices)), why)
                for series, parts, why in validation.refused
            ),
        )
    if validation.priors:
        yield priors_table(validation.priors)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["interval"]
    return (
        row["system"], row["model"], row["per_device_batch"] or "-", row["precision"] or "-", f"{row['devices']:,}",
        f"{row['measured']:,.0f}", f"{row['predicted']:,.0f}", f"{low:,.0f} to {high:,.0f}",
        f"{row['error_percent']:.1f}", f"{row['baseline_error_percent']:.1f}",
    )  # fmt: skip


def priors_table(priors: dict[str, Priors]) -> Table:
    """The parameters, with meaning and range.

    Args:
        priors: by what they predict, in words.
    """
    ranges = {name: f"{100 * low:g} to {100 * high:g} %" for name, (low, high) in RANGES.items()}
    return Table(
        title="Priors (medians, % of a step's time)",
        columns=("for", *MEANING),
        rows=tuple(
            (name, *(f"{100 * parameter['median']:.2f}" for parameter in one.parameters()))
            for name, one in priors.items()
        ),
        caption="; ".join(f"{name}: {meaning} (range {ranges[name]})" for name, meaning in MEANING.items()),
    )
