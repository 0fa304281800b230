"""Sums of numbers beside the gradient that no order changes: float64 numbers as digits, which are whole numbers.

    x = sum_j d_j 2^(-256 + b j),   0 <= d_j < 2^b

Whole numbers are summed exactly up to 2^24 in float32, so with b = 24 - ceil(log2 m) the sums of m numbers' digits are
exact, and so is the sum of the numbers, in any order and along any all-reduce. What lies below 2^-256 is left out.

Cost: 512 / b + 1 places of the buffer, 43 of them for up to 4096 numbers; nothing crosses to the host before the
step's values are read.

Source: ours; a long accumulator as in Kulisch and Miranker 1986, "The arithmetic of the digital computer", section 3,
with carries left to the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch

_LOWEST, _HIGHEST = -256, 256  # |g|^2 of float32 gradients lies between 2^-298 and 2^256
_WHOLE_BITS = 24  # whole numbers up to 2^24 are exact in float32
_CHUNK = 1 << 18  # numbers squared at once: 2 MiB of float64


class Digits:
    """How numbers are written in digits.

    Args:
        most: numbers that are added, at most.
        device: of the numbers.

    Attributes:
        bits: of a digit, b.
        length: digits of a number.
    """

    def __init__(self, most: int, device: torch.device) -> None:
        self.bits = _WHOLE_BITS - (most - 1).bit_length()
        exponents = range(_LOWEST, _HIGHEST, self.bits)
        self.length = len(exponents)
        self._scales = torch.tensor([2.0**-exponent for exponent in exponents], dtype=torch.float64, device=device)

    def of(self, number: torch.Tensor) -> torch.Tensor:
        """A number of at least 0, float64 () -> its digits, (length,): whole numbers."""
        return torch.remainder(torch.floor(number * self._scales), 2.0**self.bits)  # powers of two: nothing rounds


def value_of(digits: Sequence[float], bits: int) -> float:
    """The sum of the numbers whose digits, of so many bits, were summed: rounded once."""
    whole = sum(int(digit) << bits * place for place, digit in enumerate(digits))
    return float(Fraction(whole) * Fraction(2) ** _LOWEST)


def squared_norm(values: torch.Tensor) -> torch.Tensor:
    """sum_i x_i^2 in float64 of a vector, (): chunk after chunk, so that no float64 copy of a whole gradient is made.

    In one thread the same bits for the same values, wherever they lie.
    """
    squares = [chunk.dot(chunk) for chunk in (part.double() for part in torch.split(values, _CHUNK))]
    return torch.stack(squares).sum()
