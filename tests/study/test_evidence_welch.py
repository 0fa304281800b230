"""Student's t where its quantile is known in closed form, and what it is the quantile of."""

import math

import pytest
from scipy.integrate import quad

from batchscale.study.evidence.welch import t_quantile


def test_the_quantiles_that_have_a_closed_form():
    assert t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    assert t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-12)
    angle = math.acos(math.sqrt(1 - 0.95**2)) / 3  # four degrees: a cubic, by its cosine
    assert t_quantile(4) == pytest.approx(2 * math.sqrt(math.cos(angle) / math.sqrt(1 - 0.95**2) - 1), rel=1e-12)


@pytest.mark.parametrize("degrees", [1.2, 2.7, 3.999, 11.5, 300.0])
def test_so_much_of_the_density_lies_within_the_quantile(degrees):
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    inside, _ = quad(lambda t: scale * (1 + t * t / degrees) ** (-(degrees + 1) / 2), 0, t_quantile(degrees))
    assert 2 * inside == pytest.approx(0.95, abs=1e-9)
