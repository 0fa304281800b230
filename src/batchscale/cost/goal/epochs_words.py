"""`plan epochs` as a document, in words and in tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from batchscale.cost.goal.epochs import EpochsFit
from batchscale.hyperbola import FEWEST_POINTS
from batchscale.records.findings import Findings, Table
from batchscale.words import counted


def epochs_document(fits: Sequence[EpochsFit]) -> dict[str, Any]:
    """The JSON of `plan epochs`."""
    rows = [row for fitted in fits for row in _rows(fitted)]
    errors = [row["error_percent"] for row in rows if row["error_percent"] is not None]
    return {
        "points": len(errors),
        "of": len(rows),
        "median_error_percent": statistics.median(errors) if errors else None,
        "workloads": [_workload(fitted) for fitted in fits],
        "rows": rows,
        "warnings": list(_warnings(fits)),
    }


def _rows(fitted: EpochsFit) -> Iterator[dict[str, Any]]:
    """One a minibatch; without a prediction where the form was refused or not judged."""
    workload = fitted.workload
    holds = fitted.left_out and fitted.refusal is None
    for place, (minibatch, needed) in enumerate(zip(workload.minibatches, workload.needed, strict=True)):
        yield {
            "benchmark": workload.benchmark,
            "unit": workload.unit,
            "minibatch": minibatch,
            "measured": needed,
            "predicted": fitted.left_out[place] if holds else None,
            "error_percent": fitted.errors_percent[place] if holds else None,
        }


def _workload(fitted: EpochsFit) -> dict[str, Any]:
    hyperbola, exponent = fitted.hyperbola, fitted.exponent
    return {
        "benchmark": fitted.workload.benchmark,
        "unit": fitted.workload.unit,
        "minibatches": len(fitted.workload.minibatches),
        "critical_minibatch": fitted.critical,
        "interval": [None, None]
        if hyperbola is None
        else [hyperbola.critical_minibatch.low, hyperbola.critical_minibatch.high],
        "needed_min": fitted.needed_min,
        "needed_min_interval": [None, None]
        if hyperbola is None
        else [hyperbola.images_min.low, hyperbola.images_min.high],
        "scatter_percent": None if hyperbola is None else hyperbola.scatter_percent,
        "exponent": None if exponent is None else exponent[0],
        "exponent_interval": None if exponent is None else list(exponent[1:]),
        "leave_one_out_median_percent": fitted.leave_one_out_median_percent,
        "judged": hyperbola is not None,
        "refused": fitted.refusal is not None,
        "why": _why(fitted),
    }


def _why(fitted: EpochsFit) -> str | None:
    """Why it was refused, or is only fitted; None: it holds."""
    if fitted.hyperbola is not None:
        return fitted.refusal
    few = f"{counted(len(fitted.workload.minibatches), 'minibatch')}"
    return f"{few}, fewer than {FEWEST_POINTS}: fitted, not judged"


def _warnings(fits: Sequence[EpochsFit]) -> Iterator[str]:
    for fitted in fits:
        if fitted.hyperbola is None or fitted.refusal is not None:
            continue
        name, beyond = fitted.workload.benchmark, fitted.hyperbola.beyond
        if beyond is not None:
            yield (
                f"{name}: the critical minibatch lies {beyond} those studied, which then only bound it; study "
                f"{'larger' if beyond == 'above' else 'smaller'} ones"
            )


def epochs_findings(fits: Sequence[EpochsFit], command: Sequence[str]) -> Findings:
    """All that `plan epochs` says.

    Args:
        fits: one a workload.
        command: words of the command line.
    """
    result = epochs_document(fits)
    return Findings(
        kind="plan-epochs",
        title="Data to the goal against the minibatch",
        recipe="",
        asked=(
            f"Does E(B) = E_min (1 + B / B_crit) say how much data {counted(len(fits), 'workload')} "
            f"{'need' if len(fits) != 1 else 'needs'} at each minibatch? Each point is predicted from all others of "
            f"its workload."
        ),
        answer=_answer(fits, result),
        command=tuple(command),
        rows=tuple(result["rows"]),
        tables=tuple(_tables(result)),
        warnings=tuple(result["warnings"]),
        result=result,
    )


def _answer(fits: Sequence[EpochsFit], result: dict[str, Any]) -> str:
    refused = [fitted.workload.benchmark for fitted in fits if fitted.refusal is not None]
    few = [fitted.workload.benchmark for fitted in fits if fitted.hyperbola is None]
    tails = [f"refused: {', '.join(refused)}"] if refused else []
    tails += [f"too few minibatches to judge: {', '.join(few)}"] if few else []
    tail = f"; {'; '.join(tails)}" if tails else ""
    if not result["points"]:
        return f"Nothing predicted{tail}."
    return (
        f"{result['points']} of {result['of']} points predicted, median error {result['median_error_percent']:.1f} %"
        f"{tail}."
    )


def _tables(result: dict[str, Any]) -> Iterator[Table]:
    yield Table(
        title="Workloads",
        columns=("workload", "minibatches", "critical minibatch", "95 % interval", "exponent", "scatter %",
                 "leave-one-out %", "verdict"),
        rows=tuple(map(_workload_cells, result["workloads"])),
        caption="exponent: of 1 + (B / B_crit)^p, with its 95 % interval; 1 where the form holds",
    )  # fmt: skip
    yield Table(
        title="Points",
        columns=("workload", "unit", "minibatch", "needed", "predicted from the others", "error %"),
        rows=tuple(
            (
                row["benchmark"], row["unit"] or "-", f"{row['minibatch']:,}", _rounded(row["measured"]),
                _rounded(row["predicted"]), _number(row["error_percent"], ".1f"),
            )
            for row in result["rows"]
        ),
    )  # fmt: skip


def _rounded(value: float | None) -> str | None:
    """To three digits, without an exponent."""
    if value is None:
        return None
    return f"{value:.3g}" if abs(value) < 100 else f"{float(f'{value:.3g}'):,.0f}"


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else f"{value:{form}}"


def _workload_cells(workload: dict[str, Any]) -> tuple[str | None, ...]:
    low, high = (_rounded(end) or "no bound" for end in workload["interval"])
    exponent = workload["exponent_interval"]
    return (
        workload["benchmark"],
        f"{workload['minibatches']}",
        _rounded(workload["critical_minibatch"]),
        f"{low} to {high}" if workload["judged"] else None,
        None if exponent is None else f"{workload['exponent']:.2f} ({exponent[0]:.2f} to {exponent[1]:.2f})",
        _number(workload["scatter_percent"], ".1f"),
        _number(workload["leave_one_out_median_percent"], ".1f"),
        f"refused: {workload['why']}" if workload["refused"] else workload["why"] or "holds",
    )
