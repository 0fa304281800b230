"""Made-up searches for the steps to a goal whose critical minibatch is known."""

from __future__ import annotations

import numpy as np

from batchscale.study.steps_to_target.trials import Reached, expected_least

CRITICAL = 60.0
MINIBATCHES = tuple(2**i for i in range(3, 11))


def searched(generator, trials, *, harder=1.0, luck=1.0, failing=0.3, minibatches=MINIBATCHES):
    """What a search found where S_min (1 + CRITICAL / B) are the fewest steps there are, at the best settings.

    log S = log S_min (1 + CRITICAL / B) + 2 h |x|^2 + N(0, 0.03), x uniform in a cube of three settings around the
    best; evaluated ten times as often as the fewest steps last; some trials fail, and more than five times the fewest
    steps are beyond the budget.

    Args:
        generator: numpy's.
        trials: T, at each minibatch.
        harder: h at the largest minibatch against that at the smallest; between, rising geometrically.
        luck: h at the smallest; 0: every trial is the best.
        failing: share of the trials that never reach the goal.
        minibatches: B.
    """
    points = []
    for minibatch, h in zip(minibatches, luck * np.geomspace(1, harder, len(minibatches)), strict=True):
        fewest = 30 * (1 + CRITICAL / minibatch)
        off = (generator.uniform(-1, 1, (trials, 3)) ** 2).sum(axis=1)
        interval, budget = max(round(fewest / 10), 1), int(5 * fewest)
        steps = fewest * np.exp(2 * h * off + 0.03 * generator.standard_normal(trials))
        steps = np.ceil(steps / interval) * interval
        reached = (generator.random(trials) >= failing) & (steps <= budget)
        goals = tuple(sorted((int(s), int(s) - interval) for s in steps[reached]))
        every = [s for s, _ in goals] + [budget] * (trials - len(goals))
        first, last = goals[0] if goals else (None, None)
        half = expected_least(every, max(trials // 2, 1)) if goals else None
        points.append(
            Reached(minibatch, first, last, half, budget, interval, None, None, trials, len(goals), 0, 0, goals)
        )
    return points
