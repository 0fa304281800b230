"""The rule by which the minibatch grows with the curvature: each judgement by hand."""

import math

import pytest

from batchscale.minibatch import Minibatch, StepPlan
from batchscale.training.curvature_growth import CurvatureDecider
from batchscale.training.measuring import CURVATURE, CurvatureAsked
from batchscale.update.growing import GrowingPlan, GrowthRule

ASKED = CurvatureAsked(100, 0.01, 20)


def decided(eigenvalues, duration=None, confirm=1, resumed=False, falls_by=2.0):
    """(reference, passes, minibatch judged) of each decision of a run of 8 workers of 1 example, and its plan."""
    plan = GrowingPlan(StepPlan(Minibatch(8, 1), 64, 100), GrowthRule(64, confirm, 0, 4, 10**6))
    decider, rows = CurvatureDecider(falls_by, duration, ASKED), []
    for value in eigenvalues:
        if resumed:
            decider, state = CurvatureDecider(falls_by, duration, ASKED), decider.state()
            decider.restore(state)
        decider.note(0, plan.judged, {CURVATURE: (value, 0.1, 5)})
        verdict = decider.judge(plan.judged)
        decision = plan.decide(verdict.passes, verdict.numbers)
        rows.append((verdict.numbers["reference_eigenvalue"], verdict.passes, decision.minibatch))
    return rows


RULE = [
    # lambda falls below half of the first: 8 -> 16; half of 45 is not met by 30, then it is: 16 -> 32
    ([100, 51, 45, 30, 22.5, 22], None, 1, [(100, False, 8), (100, False, 8), (100, True, 8), (45, False, 16),
                                            (45, True, 16), (22.5, False, 32)]),
    # it rises: nothing
    ([10, 20, 40, 30, 10], None, 1, [(10, False, 8)] * 5),
    # three decisions without growth, of which the first is the first measurement: it grows; lambda_0 stays
    ([10, 9, 8, 7, 6, 9, 4], 3, 1, [(10, False, 8), (10, False, 8), (10, True, 8), (10, False, 16), (10, False, 16),
                                    (10, True, 16), (10, True, 32)]),
    # two decisions in a row must agree; lambda_0 is that of the second
    ([10, 5, 6, 5, 4, 3, 2], None, 2, [(10, False, 8), (10, True, 8), (10, False, 8), (10, True, 8), (10, True, 8),
                                       (4, False, 16), (4, True, 16)]),
    # not finite: no reference
    ([math.nan, -3, -6, 5], None, 1, [(None, False, 8), (-3, False, 8), (-3, False, 8), (-3, False, 8)]),
    # a large negative eigenvalue is no flat place; of either sign, half the magnitude is
    ([10, -50, -6, -5, 4, 2.5], None, 1, [(10, False, 8), (10, False, 8), (10, False, 8), (10, True, 8),
                                          (-5, False, 16), (-5, True, 16)]),
    ([0, 0, -1], None, 1, [(0, False, 8)] * 3),
]  # fmt: skip


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(("eigenvalues", "duration", "confirm", "rows"), RULE)
def test_every_judgement(eigenvalues, duration, confirm, rows, resumed):
    """Also where each judgement is one of a resumed run."""
    assert decided(eigenvalues, duration, confirm, resumed) == rows


def test_another_factor():
    assert [passes for _, passes, _ in decided([90, 31, 30], falls_by=3.0)] == [False, False, True]
