"""What algorithms declare to put on links, in closed form, is what the rounds of their schedules put there."""

import numpy as np
import pytest

from batchscale.comm.collectives import COLLECTIVES, make
from batchscale.comm.collectives.schedule import Collective
from batchscale.errors import RecipeError, UsageError

LAYOUTS = [(h, s) for h in (1, 2, 3, 4, 6, 7, 8, 11, 13, 32) for s in (1, 2, 3, 4, 8)]


def busiest(host, amounts, devices):
    """(devices or hosts) -> the most that any of them has."""
    return np.bincount(host, amounts, devices).max()


def counted_traffic(collective, hosts, each, length):
    """Rounds and shares of both links, from the exchanges of every round."""
    rounds, shares = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    size = hosts * each
    for step in collective.steps(size, length):
        elements = (step.end - step.begin).astype(float)
        crosses = step.source // each != step.target // each
        between = bool(crosses.any())
        if between:
            source, target, elements = (x[crosses] for x in (step.source // each, step.target // each, elements))
        else:
            source, target = step.source, step.target
        rounds[between] += 1
        shares[between] += max(busiest(source, elements, size), busiest(target, elements, size)) / length
    return rounds[False], shares[False], rounds[True], shares[True]


@pytest.mark.parametrize("name", COLLECTIVES)
def test_declared_traffic_is_that_of_the_rounds(name):
    hosts, each = np.array(LAYOUTS, float).T
    declared = COLLECTIVES[name].traffic(hosts, each)
    compared = 0
    for i, (h, s) in enumerate(LAYOUTS):
        ranks = [range(first, first + s) for first in range(0, h * s, s)]
        try:
            collective = make(name, h * s, ranks)
        except UsageError:
            assert not np.isfinite(declared.inside_rounds[i])
            continue
        if not np.isfinite(declared.inside_rounds[i]):
            assert name in ("binary_blocks", "direct")  # between hosts with several devices they are not priced
            assert h > 1
            continue
        length = 840 * h * s * (1 << (h * s).bit_length())  # pieces of every block are whole
        expected = counted_traffic(collective, h, s, length)
        values = [getattr(declared, part)[i] for part in declared.__dataclass_fields__]
        assert values == pytest.approx(expected, abs=1e-9), (name, h, s)
        compared += 1
    assert compared >= 5


def test_one_that_declares_no_traffic_is_refused_by_name():
    class Silent(Collective):
        name = "silent"

    with pytest.raises(RecipeError, match="silent"):
        Silent.traffic(np.ones(1), np.ones(1))


def test_a_hundred_thousand_layouts_at_once():
    sizes = np.arange(1, 100_001, dtype=float)
    for collective in COLLECTIVES.values():
        traffic = collective.traffic(sizes, np.full_like(sizes, 8))
        assert traffic.inside_rounds.shape == sizes.shape
