"""alpha and beta of an algorithm from its times: least squares on the relative error.

    min over alpha, beta >= 0 of sum over sizes of ((steps alpha + sent_bytes beta - seconds) / seconds)^2

A coefficient that would be negative is held at 0 and the other one fitted alone: for two unknowns that is the
constrained minimum. Standard errors are those of linear regression on the divided equations.

Source: Thakur, Rabenseifner, Gropp 2005, section 3 (the model); Lawson and Hanson 1974, chapter 23 (the bounds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_NO_ERRORS: list[float | None] = [None, None]


@dataclass(frozen=True)
class Fit:
    """What one step and one byte take.

    Args:
        alpha_seconds: of one step without bytes.
        alpha_standard_error: seconds; None where alpha is held at 0, or there are too few sizes.
        beta_seconds_per_byte: of one byte sent.
        beta_standard_error: seconds a byte; None as above.
        largest_relative_residual: of all sizes, |predicted - measured| / measured.
    """

    alpha_seconds: float
    alpha_standard_error: float | None
    beta_seconds_per_byte: float
    beta_standard_error: float | None
    largest_relative_residual: float


def fit(steps: Sequence[int], sent_bytes: Sequence[int], seconds: Sequence[float]) -> Fit:
    """The alpha and beta that explain the times best.

    Args:
        steps: rounds of the all-reduce, one a size.
        sent_bytes: by the process that sends most, one a size.
        seconds: measured, one a size.
    """
    terms = np.array([steps, sent_bytes], np.float64).T / np.array(seconds)[:, None]
    values, errors = _least_squares(terms, [0, 1])
    negative = [column for column in (0, 1) if values[column] < 0]
    if negative:
        values, errors = _least_squares(terms, [1 - negative[0]])
    residual = float(np.abs(terms @ values - 1).max())
    return Fit(float(values[0]), errors[0], float(values[1]), errors[1], residual)


def _least_squares(terms: Floats, columns: list[int]) -> tuple[Floats, list[float | None]]:
    """Coefficients of these columns (0 for the others) in terms @ values = 1, and their standard errors."""
    scale = np.linalg.norm(terms[:, columns], axis=0)  # seconds and seconds a byte are nine orders apart
    scaled = terms[:, columns] / scale
    solution, _, rank, _ = np.linalg.lstsq(scaled, np.ones(len(terms)), rcond=None)
    values, errors = np.zeros(2), _NO_ERRORS.copy()
    values[columns] = solution / scale
    free = len(terms) - len(columns)
    if free > 0 and rank == len(columns):
        variance = float(((scaled @ solution - 1) ** 2).sum()) / free
        inverse = np.diag(np.linalg.inv(scaled.T @ scaled))
        for place, column in enumerate(columns):
            errors[column] = float(np.sqrt(variance * inverse[place]) / scale[place])
    return values, errors
