"""A measure by which a minibatch grows, for tests: the mean recorded loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from batchscale.build.assembly import DECIDERS
from batchscale.minibatch import Minibatch
from batchscale.training.growing import Decider, Judgement

LARGER_BELOW = 1.0


class LossDecider:
    """Asks for a larger minibatch where the mean loss since the last decision is below a bound."""

    asks = None

    def __init__(self, bound: float = LARGER_BELOW) -> None:
        self._bound, self._losses = bound, []

    def note(self, step: int, minibatch: Minibatch, numbers: Mapping[str, Sequence[float]]) -> None:
        self._losses.append(numbers["loss"][0])

    def judge(self, minibatch: Minibatch) -> Judgement:
        mean = sum(self._losses) / len(self._losses)
        verdict = Judgement(mean < self._bound, {"mean_loss": mean, "noted": len(self._losses)})
        self._losses = []
        return verdict

    def state(self) -> dict[str, Any]:
        return {"losses": list(self._losses)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._losses = list(state.get("losses", []))


@contextmanager
def deciding(make: Callable[[], Decider] = LossDecider) -> Iterator[None]:
    """Within it, runs with growth.kind=noise_scale decide by another measure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DECIDERS, "noise_scale", lambda assembly: make())
        yield
