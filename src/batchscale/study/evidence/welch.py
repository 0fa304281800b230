"""How far two means must lie apart before their seeds tell them apart: Welch's t test at 95 %.

apart:  |mean_a - mean_b| > t(f) e,   e^2 = s_a^2 / n_a + s_b^2 / n_b
f = e^4 / ((s_a^2 / n_a)^2 / (n_a - 1) + (s_b^2 / n_b)^2 / (n_b - 1)) degrees of freedom
t(f): the 97.5 % quantile of Student's t; of three seeds each f is from 2 to 4, so t from 4.30 to 2.78

Source: Welch 1947, "The generalization of 'Student's' problem when several different population variances are
involved".
"""

from __future__ import annotations

import math

from scipy.stats import t

from batchscale.study.evidence.elbow import Point

_CONFIDENCE = 0.95


def t_quantile(degrees: float) -> float:
    """The t that |T| exceeds with probability 5 %.

    Args:
        degrees: f, of freedom, at least 1.
    """
    return float(t.ppf((1 + _CONFIDENCE) / 2, degrees))


def margin(a: Point, b: Point) -> float | None:
    """The difference of two means, in points, up to which the seeds do not tell them apart.

    Returns:
        t e; None where the spread of one is unknown (a single run, or one that diverged).
    """
    deviations = a.deviation(), b.deviation()
    if deviations[0] is None or deviations[1] is None:
        return None
    squares = [s**2 / len(point.errors) for s, point in zip(deviations, (a, b), strict=True) if s is not None]
    if not sum(squares):
        return 0.0
    degrees = sum(squares) ** 2 / sum(s**2 / (len(p.errors) - 1) for s, p in zip(squares, (a, b), strict=True))
    return t_quantile(degrees) * math.sqrt(sum(squares))
