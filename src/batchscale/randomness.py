"""Keyed, counter-based random numbers: every draw hangs on (seed, epoch, image) or (seed, step, worker).

A draw is a pure function of its key, so it is the same on any process, in any order, after any resume.
The mixer is the finalizer of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators", figure 15, variant 13 of Stafford's mixers).
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: the increment of splitmix64
_MASK = (1 << 64) - 1
_ROUNDS = 8  # Feistel rounds; 4 already make a pseudorandom permutation with ideal rounds (Luby, Rackoff 1988)


def _mix(x: Keys) -> Keys:
    x = x ^ (x >> np.uint64(30))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(27))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def key(*parts: int) -> int:
    """One 64-bit key from whole numbers, order counting: key(1, 2) is not key(2, 1).

    h <- mix((h + golden) xor part), for each part in turn

    Args:
        parts: any whole numbers, such as seed, epoch, stream.

    Returns:
        A whole number in [0, 2^64).
    """
    state = np.array([len(parts)], dtype=np.uint64)  # an array: numpy's scalars warn where they wrap round, as is meant
    for part in parts:
        state = _mix((state + np.uint64(_GOLDEN)) ^ np.uint64(part & _MASK))
    return int(state[0])


def bits(key_: int, counters: npt.NDArray[np.integer]) -> Keys:
    """64 random bits for every counter, under one key.

    b(i) = mix(mix(key xor golden (i + 1)) + key)

    Args:
        key_: a key made by :func:`key`.
        counters: whole numbers, any shape, such as image numbers.

    Returns:
        uint64, the shape of counters.
    """
    base = np.uint64(key_)
    with np.errstate(over="ignore"):
        spread = (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
        # The key once more after a mix: by one mix alone all keys would draw the same numbers, at other counters.
        return _mix(_mix(base ^ spread) + base)


def uniform(key_: int, counters: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for every counter: the upper 53 of its 64 bits, times 2^-53."""
    return (bits(key_, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(key_: int, counters: npt.NDArray[np.integer], bound: int) -> npt.NDArray[np.int64]:
    """A whole number in [0, bound) for every counter (bound at most 2^31; bias below bound / 2^32).

    i = floor(upper 32 bits * bound / 2^32)    (Lemire 2019, without the rejection step)
    """
    upper = bits(key_, counters) >> np.uint64(32)
    return ((upper * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def normal(key_: int, counters: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """A number of N(0, 1) for every counter, from two uniform ones.

    z = sqrt(-2 ln(1 - u)) cos(2 pi v)

    Source: Box and Muller 1958, "A note on the generation of random normal deviates".
    """
    twice = counters.astype(np.int64) * 2
    u, v = uniform(key_, twice), uniform(key_, twice + 1)
    values: npt.NDArray[np.float64] = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)
    return values


@functools.lru_cache(maxsize=64)
def _round_keys(key_: int) -> list[int]:
    return [key(key_, r) for r in range(_ROUNDS)]


def shuffled(key_: int, positions: npt.NDArray[np.integer], size: int) -> npt.NDArray[np.int64]:
    """The images at these positions of one shuffle of [0, size): a keyed permutation, any part of it alone.

    A Feistel network on 2^(2h) >= size numbers, walked along its cycle until it lands below size, so
    the shuffle of 14 million images needs no list of 14 million numbers.

    Args:
        key_: a key made by :func:`key`, such as key(seed, epoch).
        positions: whole numbers in [0, size).
        size: images in the set.

    Returns:
        int64, the shape of positions; all positions together give every number below size once.

    Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains" (cycle walking).
    """
    # Two halves of equal length: at most 4 size numbers, so one is walked four times on average at most.
    half = np.uint64(max((max(size - 1, 1)).bit_length() + 1, 2) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    out = positions.astype(np.uint64).ravel()
    outside = np.ones(out.shape, dtype=bool)
    while outside.any():  # ends: the cycle of a number leads back to it, and it lies below size
        block = out[outside]
        left, right = block >> half, block & mask
        for round_key in _round_keys(key_):
            left, right = right, left ^ (bits(round_key, right) & mask)
        block = (left << half) | right
        out[outside] = block
        outside[outside] = block >= np.uint64(size)
    return out.astype(np.int64).reshape(positions.shape)
