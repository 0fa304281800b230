"""The noise scale of a state, in words."""

from __future__ import annotations

from collections.abc import Iterator

from batchscale.measure.noise_scale.answer import Answer

PLAIN, PRECONDITIONED = "tr S / |G|^2", "tr(P S) / (G' P G), P = 1 / (sqrt(v / (1 - beta2^t)) + epsilon)"


def title(answer: Answer) -> str:
    """For people."""
    return f"Noise scale of {answer.run} after {answer.step} steps"


def asked(answer: Answer) -> str:
    """What was measured, with all that limits it."""
    how = "torch.func" if answer.vectorised else "one backward pass each"
    unit = "single examples" if answer.unit == "example" else f"workers of n = {answer.per_unit}"
    return (
        f"{PLAIN} in {answer.noun}, at the weights of step {answer.step}: gradients of {unit} ({how}) over the first "
        f"{answer.examples} of {answer.population} training {answer.noun} in one fixed order, without augmentation; "
        f"{answer.weights} trained weights count, a shared one once, frozen ones not."
    )


def sentence(answer: Answer) -> str:
    """The answer."""
    words = f"noise scale at step {answer.step}: {answer.plain.sentence(answer.noun)}"
    if answer.preconditioned is None:
        return words
    return f"{words}; in AdamW's metric: {answer.preconditioned.sentence(answer.noun)}"


def warnings(answer: Answer) -> Iterator[str]:
    """One line each."""
    if not answer.plain.resolved and answer.examples < answer.population:
        more = min(4 * answer.examples, answer.population)
        yield (
            f"|G|^2 is not significantly above zero over {answer.examples} {answer.noun}: the noise scale has no upper "
            f"bound; use --examples {more}"
        )
    if answer.unit == "worker":
        yield (
            f"the unit is a worker: with batch norm, or a loss of a whole worker, an example has no gradient of its "
            f"own; the number is for n = {answer.per_unit}"
        )
    if answer.preconditioned is not None:
        yield (
            "under Adam noise scales were found too low by orders of magnitude, and with the wrong trend (Merrill et "
            "al. 2025): measure branches before a minibatch is chosen by it"
        )
