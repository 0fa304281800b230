"""The noise scale of a state, as a table, and as a number of a run's page."""

from __future__ import annotations

from batchscale.measure.noise_scale.answer import Answer
from batchscale.measure.noise_scale.words import PLAIN, PRECONDITIONED
from batchscale.noise_scale import NoiseEstimate
from batchscale.records.findings import Figure, Table
from batchscale.records.measured import MeasuredNumber


def figures(answer: Answer) -> list[Figure]:
    """None: one state is one number."""
    return []


def tables(answer: Answer) -> list[Table]:
    """Each form of the noise scale with its parts."""
    forms = [(PLAIN, answer.plain), *([(PRECONDITIONED, answer.preconditioned)] if answer.preconditioned else [])]
    columns = ("form", f"noise scale, {answer.noun}", "low", "high", "|G|^2 or G' P G", "tr S or tr(P S)", "resolved")
    caption = f"Intervals of {100 * answer.plain.level:g} %; an empty upper end is none."
    return [Table(title="Noise scale", columns=columns, rows=tuple(_row(*form) for form in forms), caption=caption)]


def numbers(answer: Answer) -> list[MeasuredNumber]:
    """Each form of the noise scale."""
    forms = {"noise scale": answer.plain, "in AdamW's metric": answer.preconditioned}
    return [
        MeasuredNumber(name, f"noise scale, {answer.noun}", estimate.noise_scale, estimate.low, estimate.high)
        for name, estimate in forms.items()
        if estimate is not None
    ]


def _row(form: str, estimate: NoiseEstimate) -> tuple[str | float | None, ...]:
    numbers = (estimate.noise_scale, estimate.low, estimate.high, estimate.gradient_squared, estimate.trace)
    rounded = (None if number is None else float(f"{number:.4g}") for number in numbers)
    return (form, *rounded, "yes" if estimate.resolved else "no")
