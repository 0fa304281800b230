"""The learning rate as a function of the step: scaling rule, warmup, decay.

lr(t) = eta s(kn / reference)            the target: s(r) is r, sqrt r or 1, by the scaling rule (``update/rules.py``)
lr(t) = warmup(t), t < T_w;   target * decay(t), t >= T_w

While the minibatch grows, t counts in steps of the first minibatch, and what comes out is multiplied by s(kn_t / kn_0).

Source: Goyal et al. 2017, sections 2.1 (linear scaling) and 2.2 (warmup); Krizhevsky 2014 (square root).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from batchscale.minibatch import StepPlan
from batchscale.update.rules import SCALINGS as SCALINGS

WARMUPS: dict[str, Callable[[float, float, float], float]] = {
    "none": lambda start, target, progress: target,
    "constant": lambda start, target, progress: start,
    "gradual": lambda start, target, progress: start + (target - start) * progress,
}
"""(lr at its start, target lr, progress in [0, 1) of the warmup) -> lr. Source: Goyal et al. 2017, section 2.2."""


@dataclass(frozen=True)
class Decay:
    """How the lr falls; durations in steps.

    Args:
        steps: where a step decay multiplies by factor.
        factor: of each step; one for all, or one for each.
        power: of the polynomial.
        final: share of the target that is left at the end.
        end: where cosine and polynomial end; None for the run's end.
    """

    kind: str = "none"
    steps: tuple[float, ...] = ()
    factor: float | tuple[float, ...] = 0.1
    power: float = 2.0
    final: float = 0.0
    end: float | None = None

    def stepped(self, step: float) -> float:
        """The product of the factors of all decays up to this step."""
        passed = sum(step >= s for s in self.steps)
        return math.prod(self.factor[:passed]) if isinstance(self.factor, tuple) else self.factor**passed


_MOST_HALVINGS = 40  # 2^40 times the first minibatch is above any data set


DECAYS: dict[str, Callable[[Decay, float, float], float]] = {
    "none": lambda d, step, progress: 1.0,
    "step": lambda d, step, progress: d.stepped(step),
    "cosine": lambda d, step, progress: d.final + (1 - d.final) * 0.5 * (1 + math.cos(math.pi * progress)),
    "polynomial": lambda d, step, progress: d.final + (1 - d.final) * (1 - progress) ** d.power,
}
"""(decay, step, progress in [0, 1] from the warmup's end to the decay's end) -> share of the target lr."""


def halvings(decay: Decay, begin: float, end: float) -> list[float]:
    """Where a decay has halved the lr once more: the first times at which its share is at most 1/2, 1/4, ...

    Args:
        decay: its steps and its end in the unit of begin and end.
        begin: of the decay, the warmup's end.
        end: of the decay.

    Returns:
        Times in (begin, end], to a millionth; a decay that halves the lr several times at once gives its time as often.

    Source: Meterez et al. 2025 (seesaw).
    """

    def share(time: float) -> float:
        return DECAYS[decay.kind](decay, time, min(max((time - begin) / (end - begin), 0.0), 1.0))

    times: list[float] = []
    while len(times) < _MOST_HALVINGS and share(end) <= (half := 0.5 ** (len(times) + 1)):
        low, high = begin, end  # no decay ever rises
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if share(middle) <= half * (1 + 1e-12) else (middle, high)
        times.append(round(high, 6))
    return times


def scaled_lr(reference: float, reference_minibatch: int, minibatch_images: int, rule: str) -> float:
    """The target lr of a minibatch: eta s(kn / reference).

    Args:
        reference: eta, the lr at the reference minibatch.
        reference_minibatch: images.
        minibatch_images: kn.
        rule: a member of SCALINGS.

    Returns:
        The lr.

    Examples:
        >>> batchscale.scaled_lr(reference=0.1, reference_minibatch=256, minibatch_images=8192, rule="linear")
        3.2

    Source: Goyal et al. 2017, section 2.1.
    """
    return reference * SCALINGS[rule](minibatch_images / reference_minibatch)


@dataclass(frozen=True)
class Schedule:
    """lr of every step.

    Args:
        reference: eta, where a constant or gradual warmup starts (never above the target) unless start is given.
        target: the lr after the warmup.
        total_steps: T.
        warmup: a member of WARMUPS.
        warmup_steps: T_w (a fraction of a step is fine: durations are given in epochs).
        decay: how the lr falls after the warmup.
        start: the lr where the warmup starts: gradual from 0 is lr(t) = target t / T_w, 0 at the first step.

    Examples:
        >>> schedule = batchscale.Schedule(0.1, 3.2, 100, "gradual", 10, batchscale.Decay("cosine"))
        >>> [round(schedule(step), 2) for step in (0, 5, 10, 55, 100)]
        [0.1, 1.65, 3.2, 1.6, 0.0]
    """

    reference: float
    target: float
    total_steps: float
    warmup: str = "none"
    warmup_steps: float = 0.0
    decay: Decay = Decay()
    start: float | None = None

    def __call__(self, step: float) -> float:
        """The lr of this step (0 is the first)."""
        if self.warmup != "none" and step < self.warmup_steps:
            start = min(self.reference, self.target) if self.start is None else self.start
            return WARMUPS[self.warmup](start, self.target, step / self.warmup_steps)
        begin = self.warmup_steps if self.warmup != "none" else 0.0
        end = self.total_steps if self.decay.end is None else self.decay.end
        progress = min(max((step - begin) / max(end - begin, 1), 0.0), 1.0)
        return self.target * DECAYS[self.decay.kind](self.decay, step, progress)


@dataclass(frozen=True)
class BranchFactor:
    """How a branch's lr relates to its trunk's at the same number of examples seen.

    lr_branch = s(f) lr_trunk;   over a warmup of w examples (1 + (s(f) - 1) x / w) lr_trunk, x seen since it began

    Attributes:
        first_step: of the branch.
        minibatch_factor: f, its minibatch over the trunk's where it begins.
        rule: s, a member of SCALINGS.
        warmup: w; 0: s(f) from the first step on.
    """

    first_step: int
    minibatch_factor: float
    rule: str
    warmup: int = 0

    def after(self, examples: int) -> float:
        """The factor on the lr, so many examples since it began."""
        whole = SCALINGS[self.rule](self.minibatch_factor)
        return whole if examples >= self.warmup else 1.0 + (whole - 1.0) * examples / self.warmup


@dataclass(frozen=True)
class PlannedSchedule:
    """lr of every step of a plan, whatever its minibatches.

    lr(t) = s(kn_t / kn_0) lr_0(u(t)),   u(t) = images before step t / kn_0

    So warmup and decay are the same functions of the epoch with and without growth; where the minibatch never changes,
    lr(t) = lr_0(t).

    Args:
        plan: of the steps.
        first: lr_0, the schedule of the first minibatch in its steps.
        scaling: s, a member of SCALINGS; "none" where the lr stays when the minibatch grows.
        branches: of a run that goes on from a trunk, from the first one on.

    Source: Goyal et al. 2017, section 2.1; Devarakonda et al. 2017 (linear); Smith et al. 2018 (none).
    """

    plan: StepPlan
    first: Schedule
    scaling: str = "none"
    branches: tuple[BranchFactor, ...] = ()

    def __call__(self, step: int) -> float:
        """The lr of this step (0 is the first)."""
        return self.factor(step) * self.first(first_steps(self.plan, step))

    def factor(self, step: int) -> float:
        """s(kn_t / kn_0); of a branch of factor f from its first step on s_rule(f) s(kn_t / (f kn_0))."""
        grown, factor = self.plan.minibatch_at(step).images / self.plan.minibatch.images, 1.0
        for branch in self.branches:
            if step >= branch.first_step:
                grown /= branch.minibatch_factor
                factor *= branch.after(self.plan.images(step) - self.plan.images(branch.first_step))
        return factor * SCALINGS[self.scaling](grown)


def first_steps(plan: StepPlan, steps: int) -> float:
    """How many steps of the first minibatch take as many epochs as so many steps of the plan."""
    return float(plan.epoch_at(steps) * plan.phases[0].steps_per_epoch)
