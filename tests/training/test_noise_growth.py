"""The decision by the noise scale alone: what is noted, what is judged, what a resume goes on from."""

import json

import pytest

from batchscale.minibatch import Minibatch
from batchscale.training.noise_growth import NoiseScaleDecider

MINIBATCH = Minibatch(4, 2)


def decider(multiple, *estimates):
    """One that has noted these (|G|^2, tr S) of the steps 0, 1, ...; None: a step that measured nothing."""
    measure = NoiseScaleDecider(multiple, lambda step, numbers: estimates[step])
    for step in range(len(estimates)):
        measure.note(step, MINIBATCH, {})
    return measure


@pytest.mark.parametrize(("multiple", "passes"), [(1.9, True), (2.0, False), (2.1, False)])
def test_the_minibatch_grows_above_a_multiple_of_its_examples(multiple, passes):
    """Means 3 and 48: a noise scale of 16 at kn = 8, twice as large; to be above is asked for."""
    verdict = decider(multiple, (2.0, 40.0), None, (4.0, 56.0)).judge(MINIBATCH)
    assert verdict.passes == passes
    assert verdict.numbers == {"noise_scale": 16.0, "gradient_squared": 3.0, "trace": 48.0, "measured_steps": 2}


def test_a_gradient_that_is_not_above_zero_asks_for_more_and_has_no_scale():
    verdict = decider(2.0, (-1.0, 5.0), (0.5, 5.0)).judge(MINIBATCH)
    assert verdict.passes
    assert verdict.numbers["noise_scale"] is None


def test_nothing_measured_asks_for_nothing_and_a_judgement_begins_anew():
    assert not decider(2.0, None, None).judge(MINIBATCH).passes
    measure = decider(2.0, (1.0, 99.0))
    assert measure.judge(MINIBATCH).passes
    assert measure.judge(MINIBATCH) == decider(2.0).judge(MINIBATCH)


def test_a_state_as_json_goes_on():
    measure, other = decider(2.0, (2.0, 40.0), (4.0, 56.0)), decider(2.0)
    other.restore(json.loads(json.dumps(measure.state())))
    assert other.judge(MINIBATCH) == measure.judge(MINIBATCH)
