"""That all frameworks do the same work: the losses of ten steps, from the same weights on the same examples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchscale.bench.documents import Agreement
from batchscale.bench.frameworks.settings import TrainingSettings
from batchscale.bench.rounds import Measured, Rounds

TOLERANCES = {"sgd": 1e-4, "adam": 1e-2}
"""Of the difference of a loss, in the order in which the parts are proved."""


def prove(rounds: Rounds, settings: TrainingSettings, processes: int) -> list[Agreement]:
    """Train ten steps in every framework, by momentum SGD and by Adam; leave out those whose losses are others.

    The first contender that runs, batchscale, is what the others are compared with.

    Args:
        rounds: with the contenders, just started.
        settings: of the recipe.
        processes: W.
    """
    rows = []
    for optimizer, tolerance in TOLERANCES.items():
        setting, losses = settings.proof(optimizer, processes), {}
        for measured in list(rounds.running):
            with rounds.may_fail(measured):
                measured.contender.ask(setting.order)
                losses[measured.contender.name] = losses_of(measured, setting.steps)
        reference = next((losses[m.contender.name] for m in rounds.running), [])
        for measured in list(rounds.running):
            name = measured.contender.name
            row = Agreement(
                name=name, processes=processes, optimizer=optimizer, tolerance=tolerance,
                largest_difference=largest_difference(losses[name], reference), losses=losses[name],
            )  # fmt: skip
            rows.append(row)
            if not row.agrees:
                rounds.leave_out(
                    measured,
                    f"{name} is not timed over {processes}: its first losses by {optimizer} differ by "
                    f"{row.largest_difference:.2g}, more than {tolerance:g}: it does not do the same work",
                )
    return rows


def losses_of(measured: Measured, steps: int, expected_seconds: float = 0.0) -> list[float]:
    """Of the next steps, each the mean over the processes'."""
    block = measured.contender.block(steps, expected_seconds)
    each = [answer["losses"] for answer in block.answers]
    return [sum(values) / len(values) for values in zip(*each, strict=True)]


def largest_difference(losses: Sequence[float], reference: Sequence[float]) -> float:
    """max over steps t of |loss[t] - reference[t]|; infinite where one is no number."""
    differences = [abs(a - b) for a, b in zip(losses, reference, strict=True)]
    return max(differences) if all(map(math.isfinite, differences)) else math.inf
