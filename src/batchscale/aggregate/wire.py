"""Gradients sent in 16 bits between processes: in which type a step's go out, and by how much they are scaled.

bfloat16 has float32's range: nothing is scaled. float16 holds 2^-24 .. 65504, so a step's gradients are multiplied by a
power of two, which is exact, and divided by it after the sum:

    2^e, e = 7 - floor(log2 of the largest |gradient| of the step before)

Every process has the bits of that sum, so all know e without an exchange. Up to 256 times the last largest value fits;
what lies 2^32 below it becomes zero. A step of which no such value is known (the first of an attempt), or in which one
overflows, is sent in float32: an overflow repeats the step so, as exact mode repeats one, and costs no update.

Cost: half the bytes; two conversions a hop. float16: two passes over the gradients, and their maximum, for which the
host waits once a step.
Sources: Mikami et al. 2018, Jia et al. 2018, Akiba et al. 2017 (gradients exchanged in half precision).
"""

from __future__ import annotations

import math

import torch

from batchscale.comm import Reducer, Reduction

_LARGEST = 8  # 2^8 is more than the scaled largest one: 2^8 below float16's end, 2^22 above its least normal number
_MOST = 100  # of e: so that neither 2^e nor what it scales leaves float32


class Wire:
    """How the gradients of a step go out.

    Args:
        dtype: bfloat16 or float16; None for the gradients' own.

    Attributes:
        now: type that they are sent in, in the attempt under way.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self.dtype = self.now = dtype
        self._exponent: int | None = None

    @property
    def looks(self) -> bool:
        """Whether ``ended`` looks at the sums: on a GPU the host waits for them once a step."""
        return self.dtype is torch.float16

    def begin(self) -> None:
        """A step begins."""
        unknown = self.dtype is torch.float16 and self._exponent is None
        self.now = None if unknown else self.dtype

    def start(self, reducer: Reducer, bucket: torch.Tensor, what: str) -> Reduction:
        """Begin the sum of a bucket that holds gradients alone."""
        if self.now is None:
            return reducer.start(bucket, what)
        if not self._exponent:
            return reducer.start(bucket, what, wire=self.now)
        bucket.mul_(2.0**self._exponent)
        return _Scaled(reducer.start(bucket, what, wire=self.now), bucket, 2.0**-self._exponent)

    def ended(self, gradients: torch.Tensor) -> bool:
        """Whether the sums stand; else the step is to be repeated, in float32.

        Args:
            gradients: the sums, the same bits on every process.
        """
        if not self.looks:
            return True
        largest = float(torch.linalg.vector_norm(gradients, math.inf))
        finite = math.isfinite(largest)
        self._exponent = min(_LARGEST - math.frexp(largest)[1], _MOST) if finite and largest else None
        stands = finite or self.now is None
        self.now = None
        return stands


class _Scaled:
    """A sum that was scaled before it was begun."""

    def __init__(self, reduction: Reduction, bucket: torch.Tensor, factor: float) -> None:
        self._reduction, self._bucket, self._factor = reduction, bucket, factor

    def wait(self) -> None:
        """Have the sum, as it is without the scale."""
        self._reduction.wait()
        self._bucket.mul_(self._factor)
