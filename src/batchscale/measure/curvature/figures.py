"""The curvature of states, as tables and the figure of its spectrum."""

from __future__ import annotations

from batchscale.measure.curvature.answer import Answer, PartCurvature
from batchscale.records.findings import Axis, Figure, Series, Table
from batchscale.records.measured import MeasuredNumber

_LOWEST = 1e-5  # of the highest density: what lies below is the smoothing's tail


def figures(answer: Answer) -> list[Figure]:
    """The spectral densities that were asked for, on one scale."""
    series = tuple(_density(row) for row in answer.rows if row.density is not None)
    if not series:
        return []
    caption = (
        f"Density of the eigenvalues of the {answer.matrix}, each smoothed by 1 % of the spectrum's length; mean of "
        f"the random vectors, and between the lowest and the highest of them. Stochastic Lanczos quadrature."
    )
    y = Axis(label="density", scale="log10")
    return [Figure(id="spectrum", title="Spectrum", caption=caption, x=Axis(label="eigenvalue"), y=y, series=series)]


def _density(row: PartCurvature) -> Series:
    density = row.density
    assert density is not None
    floor = _LOWEST * max(density.y)
    within = [number for number, y in enumerate(density.y) if y > floor]
    x, y, high = ([values[number] for number in within] for values in (density.x, density.y, density.high))
    low = [max(density.low[number], floor) for number in within]
    name = f"{row.run}, {row.name}"
    return Series(name=name, x=tuple(x), y=tuple(y), low=tuple(low), high=tuple(high), style="curve")


def tables(answer: Answer) -> list[Table]:
    """Eigenvalues with their residuals; traces with their intervals."""
    eigenvalues = [row for row in answer.rows if row.eigenvalues is not None]
    traces = [row for row in answer.rows if row.trace is not None]
    return [*([_eigenvalues(eigenvalues)] if eigenvalues else []), *([_traces(traces)] if traces else [])]


def numbers(answer: Answer) -> list[MeasuredNumber]:
    """The largest eigenvalue and the trace, of the net or each part."""
    numbers = []
    for row in answer.rows:
        of_part = f" of {row.part}" if row.part else ""
        if row.eigenvalues is not None:
            axis = f"top eigenvalue of the {answer.matrix}"
            highest = next(iter(row.eigenvalues.values), None)  # none where none converged
            numbers.append(MeasuredNumber(f"top eigenvalue{of_part}", axis, highest))
        if row.trace is not None:
            estimate, axis = row.trace, f"trace of the {answer.matrix}"
            numbers.append(MeasuredNumber(f"trace{of_part}", axis, estimate.value, estimate.low, estimate.high))
    return numbers


def _eigenvalues(rows: list[PartCurvature]) -> Table:
    cells = [
        (row.run, row.name, number, _short(value), _short(residual))
        for row in rows
        if row.eigenvalues is not None
        for number, (value, residual) in enumerate(
            zip(row.eigenvalues.values, row.eigenvalues.residuals, strict=True), 1
        )
    ]
    return Table(
        title="Largest eigenvalues",
        columns=("run", "part", "number", "eigenvalue", "residual |H q - lambda q|"),
        rows=tuple(cells),
        caption="An eigenvalue of the matrix lies within the residual of each.",
    )


def _traces(rows: list[PartCurvature]) -> Table:
    cells = [
        (
            row.run,
            row.name,
            row.weights,
            _short(t.value),
            _finite(t.low),
            _finite(t.high),
            _short(t.value / row.weights),
        )
        for row in rows
        for t in [row.trace]
        if t is not None
    ]
    level = rows[0].trace.level if rows[0].trace else 0.9
    return Table(
        title="Trace",
        columns=("run", "part", "weights", "trace", "low", "high", "mean eigenvalue"),
        rows=tuple(cells),
        caption=f"Hutchinson's estimate beside the eigenvectors above, with Student's interval of {100 * level:g} %.",
    )


def _short(number: float) -> float:
    return float(f"{number:.4g}")


def _finite(number: float) -> float | None:
    return _short(number) if abs(number) != float("inf") else None
