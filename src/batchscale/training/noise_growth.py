"""Growth by the noise scale: the minibatch doubles where B_simple = tr S / |G|^2 is above a multiple of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchscale.minibatch import Minibatch, StepPlan
from batchscale.recipe.minibatch import GrowthByNoiseScale, GrowthEntry
from batchscale.training.growing import Judgement
from batchscale.training.measuring import CurvatureAsked
from batchscale.training.noise_scale import NOISE, noise_of

Reading = Callable[[int, Mapping[str, Sequence[float]]], tuple[float, float] | None]
"""(step, what all processes know after it) -> (|G|^2, tr S) of the step, None where it measured none."""


class NoiseScaleDecider:
    """Asks for a larger minibatch than kn where the noise scale is above m kn.

    mean tr S > m kn mean |G|^2,   over the measured steps since the last decision

    So written, nothing is divided: where the estimate of |G|^2 is not above zero, the noise scale is not resolved (it
    is recorded as null), and that it is above m kn is just what such an estimate says.

    Args:
        multiple: m.
        reads: of a step.

    Source: McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", section 2 and appendix A.1.
    """

    asks: CurvatureAsked | None = None

    def __init__(self, multiple: float, reads: Reading) -> None:
        self._multiple, self._reads = multiple, reads
        self._gradient, self._trace, self._steps = 0.0, 0.0, 0

    def note(self, step: int, minibatch: Minibatch, numbers: Mapping[str, Sequence[float]]) -> None:
        """Add a measured step's |G|^2 and tr S: neither hangs on its minibatch."""
        if (estimates := self._reads(step, numbers)) is not None:
            self._gradient += estimates[0]
            self._trace += estimates[1]
            self._steps += 1

    def judge(self, minibatch: Minibatch) -> Judgement:
        """Whether the noise scale is above m kn; without any measured step it is not."""
        steps = max(self._steps, 1)
        gradient, trace = self._gradient / steps, self._trace / steps
        passes = self._steps > 0 and trace > self._multiple * minibatch.images * gradient
        scale = trace / gradient if gradient > 0 else None
        numbers = {
            "noise_scale": scale, "gradient_squared": gradient, "trace": trace, "measured_steps": self._steps,
        }  # fmt: skip
        self.restore({})
        return Judgement(passes, numbers)

    def state(self) -> dict[str, Any]:
        """The sums since the last judgement."""
        return {"gradient_squared": self._gradient, "trace": self._trace, "measured_steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from sums."""
        self._gradient, self._trace = state.get("gradient_squared", 0.0), state.get("trace", 0.0)
        self._steps = state.get("measured_steps", 0)


def noise_decider(entry: GrowthEntry, plan: StepPlan) -> NoiseScaleDecider:
    """Of minibatch.growth.kind=noise_scale, by the numbers of the rider that measures it."""
    assert isinstance(entry, GrowthByNoiseScale)

    def reads(step: int, numbers: Mapping[str, Sequence[float]]) -> tuple[float, float] | None:
        return noise_of(numbers[NOISE], plan.minibatch_at(step).images, plan.training_images)

    return NoiseScaleDecider(entry.multiple, reads)
