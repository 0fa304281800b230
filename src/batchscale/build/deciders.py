"""Measures by which a minibatch grows, made of what a run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchscale.minibatch import StepPlan
from batchscale.recipe.minibatch import GrowthByNoiseScale, GrowthEntry
from batchscale.training.growing import Decider
from batchscale.training.noise_growth import NoiseScaleDecider
from batchscale.training.noise_scale import NOISE, noise_of


def noise_decider(entry: GrowthEntry, plan: StepPlan) -> Decider:
    """Of minibatch.growth.kind=noise_scale, by the numbers of the rider that measures it."""
    assert isinstance(entry, GrowthByNoiseScale)

    def reads(step: int, numbers: Mapping[str, Sequence[float]]) -> tuple[float, float] | None:
        return noise_of(numbers[NOISE], plan.minibatch_at(step).images, plan.training_images)

    return NoiseScaleDecider(entry.multiple, reads)
