"""The curvature of states, in words."""

from __future__ import annotations

from collections.abc import Iterator

from batchscale.measure.curvature.answer import Answer, PartCurvature
from batchscale.words import counted

_FORMS = {
    "averages": " Batch norm normalises by the running averages of the step.",
    "recomputed": " Batch norm normalises by averages recomputed over these examples at the weights, held as they are.",
    "": "",
}
_FAR = 0.05  # a residual above this share of its eigenvalue is said


def title(answer: Answer) -> str:
    """For people."""
    runs = list(dict.fromkeys(f"{row.run} after {row.step} steps" for row in answer.rows))
    return f"Curvature of {', '.join(runs)}"


def asked(answer: Answer) -> str:
    """What was measured, with all that limits it."""
    return (
        f"The {answer.matrix} of the mean training loss (task {answer.task}) over the first {answer.examples} of "
        f"{answer.population} training {answer.noun} in one fixed order, without augmentation and without dropout, at "
        f"the weights of the step; trained weights count, a shared one once, frozen ones not."
        f"{_FORMS[answer.batch_norm]} Random vectors are those of seed {answer.seed}."
    )


def sentence(answer: Answer) -> str:
    """The answer."""
    return "; ".join(_of_row(row, answer) for row in answer.rows)


def _of_row(row: PartCurvature, answer: Answer) -> str:
    several = len({each.run for each in answer.rows}) > 1
    name = f"{row.run}, {row.name}" if several else row.name
    phrases = []
    if row.eigenvalues is not None:
        values = row.eigenvalues.values
        phrases.append(f"largest eigenvalue {values[0]:.4g}" if values else "no eigenvalue converged")
    if row.trace is not None:
        estimate = row.trace
        interval = f" ({100 * estimate.level:g} %: {estimate.low:.4g} to {estimate.high:.4g})"
        phrases.append(f"trace {estimate.value:.4g}{interval if estimate.probes > 1 else ' of one probe'}")
    if row.density is not None:
        phrases.append(f"spectrum from {row.density.x[0]:.3g} to {row.density.x[-1]:.3g}")
    return f"{name} ({counted(row.weights, 'weight')}): {', '.join(phrases) or 'nothing asked'}"


def warnings(answer: Answer) -> Iterator[str]:
    """One line each."""
    for row in answer.rows:
        top = row.eigenvalues
        if top is None:
            continue
        if not top.converged:
            yield (
                f"{row.run}, {row.name}: {len(top.values)} eigenvalues came within the tolerance; raise --tolerance, "
                f"ask for fewer, or use --precision fp64"
            )
        far = [n for n, (v, r) in enumerate(zip(top.values, top.residuals, strict=True), 1) if r > _FAR * abs(v)]
        if far:
            yield (
                f"{row.run}, {row.name}: the residual of eigenvalue {', '.join(map(str, far))} is above "
                f"{100 * _FAR:g} % of it; lower --tolerance, or use --precision fp64"
            )
