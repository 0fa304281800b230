"""Distances in words."""

from __future__ import annotations

from collections.abc import Iterator

from batchscale.measure.distance.answer import Answer, Travelled
from batchscale.words import counted


def title(answer: Answer) -> str:
    """For people."""
    names = [path.run for path in answer.paths]
    return f"Distance from the initial weights, {names[0] if len(names) == 1 else f'{len(names)} runs'}"


def asked(answer: Answer) -> str:
    """What was measured."""
    return (
        "|w - w0| over all trained weights, at the steps whose checkpoints are kept and at those measured while it "
        "trained; w0 drawn again by the run's seed. Fits: |w - w0| = a + b ln t, and |w - w0| = c t^p, both by least "
        "squares (the second of logarithms)."
    )


def sentence(answer: Answer) -> str:
    """The answer."""
    return "; ".join(map(_sentence, answer.paths))


def _sentence(path: Travelled) -> str:
    words = f"{path.run}: {path.distances[-1]:.4g} from the initial weights after {path.steps[-1]} steps"
    if path.logarithmic is None or path.power is None:
        return words
    return (
        f"{words}, b = {path.logarithmic.slope:.3g} (R^2 {path.logarithmic.explained:.3f}), "
        f"p = {path.power.slope:.3g} (R^2 {path.power.explained:.3f})"
    )


def warnings(answer: Answer) -> Iterator[str]:
    """One line each."""
    for path in answer.paths:
        if path.logarithmic is None:
            yield (
                f"{path.run}: distances of {counted(len(path.steps), 'step')} are no curve: train with "
                f"execution.keep_checkpoints={{steps: [...]}}, or execution.measures=[{{name: distance, every: M}}]"
            )
