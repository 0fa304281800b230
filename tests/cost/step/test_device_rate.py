"""The rate of one device is what makes the model's step the measured one."""

import pytest
from support.plans import cluster_of, net_of, sourced

from batchscale.cost.step.device_rate import rate_of_step
from batchscale.cost.step.step_time import step_time
from batchscale.errors import DataError


@pytest.mark.parametrize("devices", [1, 8, 64])
def test_a_rate_comes_back(devices):
    net, cluster = net_of(), cluster_of(jitter_percent=sourced(2.0))
    seconds = step_time(net, cluster, devices, 4, "three_phase", rate=123.0).total[0]
    assert rate_of_step(net, cluster, devices, 4, seconds, algorithm="three_phase") == pytest.approx(123.0)


def test_a_step_that_no_link_can_do_is_refused():
    with pytest.raises(DataError, match="all-reduce alone"):
        rate_of_step(net_of(), cluster_of(), 64, 4, 1e-3, algorithm="ring")
