"""What the branches of one checkpoint say under one rule, where the window ends and at half of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from batchscale.study.branch.cells import BRANCH, CONTROL, CONTROLS
from batchscale.study.branch.curve import BranchCurve, pooled
from batchscale.study.branch.efficiency import HalfEfficiency, crossing, examples_to, half_efficiency
from batchscale.study.branch.paired import (
    Difference,
    WithoutLoss,
    difference,
    examples_that_would_do,
    largest_without_loss,
    set_error,
)
from batchscale.study.branch.window import Window

Place = tuple[str, int, str, int, float]
"""(part, step, rule, factor, factor on the lr) of a branch; of all of its seeds."""
_APART = 2.0  # half efficiency at the half and the whole window: further apart, and it is unsettled


@dataclass(frozen=True)
class Verdicts:
    """After one window, of one checkpoint and rule.

    Attributes:
        examples: of the window.
        reference: mean loss of factor 1; None where it is not known.
        tolerance: in the loss's unit.
        differences: of the factors above 1, rising.
        no_loss: the largest without loss.
        half: half efficiency; what it needs beyond the window is of the window twice as long.
    """

    examples: int
    reference: float | None
    tolerance: float
    differences: tuple[Difference, ...]
    no_loss: WithoutLoss
    half: HalfEfficiency


@dataclass(frozen=True)
class Critical:
    """The answer after one checkpoint under one rule.

    Attributes:
        step: of the trunk.
        seen: examples.
        rule: of the lr.
        whole: where the window ends.
        earlier: at half of it; None where no evaluation lies there.
        controls: factor on the lr -> difference of factor 1 under it.
        wanted_examples: evaluation examples that would tell the tolerance, where those there do not.
    """

    step: int
    seen: int
    rule: str
    whole: Verdicts
    earlier: Verdicts | None
    controls: Mapping[float, Difference]
    wanted_examples: int | None

    @property
    def settled(self) -> bool:
        """Whether the largest without loss is the same at half of the window."""
        return self.earlier is not None and self.earlier.no_loss.largest == self.whole.no_loss.largest

    @property
    def half_settled(self) -> bool:
        """Whether half efficiency is within a factor of two of that at half of the window."""
        if self.earlier is None:
            return False
        ends = self.earlier.half.factor, self.whole.half.factor
        if ends[0] is None or ends[1] is None:
            return ends[0] is ends[1]
        return max(ends[0] / ends[1], ends[1] / ends[0]) < _APART


def critical_of(
    curves: Mapping[Place, Mapping[int, BranchCurve]], window: Window, step: int, rule: str, tolerance: float
) -> Critical:
    """The answer after one checkpoint.

    Args:
        curves: place -> seed -> branch, of the whole study.
        window: of all.
        step: of the trunk.
        rule: of the lr.
        tolerance: in percent of factor 1's loss.
    """
    by_factor = {
        factor: curves[BRANCH, step, rule, factor, 1.0]
        for factor in window.factors
        if (BRANCH, step, rule, factor, 1.0) in curves
    }
    whole = _verdicts(by_factor, window.examples, tolerance)
    earlier = None if window.half is None else _verdicts(by_factor, window.half, tolerance)
    reference = _losses(by_factor[1], window.examples)
    controls = {
        lr: difference(1, _losses(branches, window.examples), reference)
        for lr in CONTROLS
        for branches in [_control(curves, step, lr)]
        if branches
    }
    wanted = _wanted_examples(by_factor, whole)
    return Critical(step, step * window.minibatch, rule, whole, earlier, controls, wanted)


def _control(curves: Mapping[Place, Mapping[int, BranchCurve]], step: int, lr: float) -> Mapping[int, BranchCurve]:
    """The branches of factor 1 under another lr: of whatever rule, for at factor 1 all are one."""
    places = (place for place in curves if (place[0], place[1], place[4]) == (CONTROL, step, lr))
    return curves.get(next(places, (CONTROL, step, "", 1, lr)), {})


def _losses(branches: Mapping[int, BranchCurve], examples: int) -> dict[int, float]:
    """Seed -> loss after so many examples, of the seeds where it is known."""
    known = {seed: curve.at(examples) for seed, curve in branches.items()}
    return {seed: loss for seed, loss in known.items() if loss is not None}


def _verdicts(by_factor: Mapping[int, Mapping[int, BranchCurve]], examples: int, tolerance_percent: float) -> Verdicts:
    reference = _losses(by_factor[1], examples)
    finite = [loss for loss in reference.values() if math.isfinite(loss)]
    mean = statistics.fmean(finite) if finite else None
    tolerance = tolerance_percent / 100 * abs(mean or 0.0)
    differences = tuple(
        difference(factor, _losses(branches, examples), reference)
        for factor, branches in by_factor.items()
        if factor > 1
    )
    crossings = [crossing(ratios) for seed in reference if len(ratios := _ratios(by_factor, seed, examples)) > 1]
    no_loss = largest_without_loss(differences, tolerance)
    return Verdicts(examples, mean, tolerance, differences, no_loss, half_efficiency(crossings))


def _ratios(by_factor: Mapping[int, Mapping[int, BranchCurve]], seed: int, examples: int) -> dict[int, float]:
    """Factor -> examples to the loss of factor 1 over those of factor 1, of one seed; empty where that did not fall.

    Where factor 1 has its last loss before half of the window, this no longer falls: ratios of how its noise comes down
    are no ratios of examples needed.
    """
    first = by_factor[1].get(seed)
    goal = first.at(examples) if first else None
    if first is None or goal is None or not math.isfinite(goal):
        return {}
    needed = examples_to(first.path(examples), goal)
    if not needed or needed < examples / 2:
        return {}
    ratios = {1: 1.0}
    for factor, branches in by_factor.items():
        curve = branches.get(seed)
        if factor == 1 or curve is None or curve.status in ("failed", "missing"):
            continue
        reached = examples_to(curve.path(2 * examples), goal)
        if reached is not None:
            ratios[factor] = reached / needed
        elif curve.status == "diverged" or curve.went_on or max(curve.losses, default=0) >= 2 * examples:
            ratios[factor] = math.inf
    return ratios


def _wanted_examples(by_factor: Mapping[int, Mapping[int, BranchCurve]], whole: Verdicts) -> int | None:
    """The evaluation examples that would tell the tolerance, of the factors up to the first that did not pass."""
    wanted = []
    for each in whole.differences:
        pairs = [(by_factor[each.factor][seed], by_factor[1][seed]) for seed in each.by_seed]
        chunks = pooled(pairs)
        error = set_error(chunks)
        if error is not None and whole.tolerance:
            wanted.append(examples_that_would_do(sum(size for size, _ in chunks), error, whole.tolerance))
        if whole.no_loss.verdicts[each.factor] != "passed":
            break
    return max((size for size in wanted if size is not None), default=None)
