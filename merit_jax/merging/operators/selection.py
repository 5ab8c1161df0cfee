"""Exact m-th largest magnitude of numbers that come in pieces, in two passes and the memory of one piece."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from merit_jax.core.types import Array

HALF = 16
"""Bits of a float32 that one pass decides."""

CHUNK = 2**20
"""Numbers counted at a time."""

Pieces = Callable[[], Iterable[Array]]
"""Starts a pass over the numbers."""


class Place(NamedTuple):
    """The place of a rank among counted bins.

    Attributes:
        bin: The bin.
        rank: The rank among the bin's own, largest first, from 1.
    """

    bin: int
    rank: int


def magnitude_threshold(pieces: Pieces, density: int | float) -> float:
    """Finds the m-th largest |x| of n numbers, m = max(1, ⌊density · n⌋): keeping |x| at least as large keeps the largest m.

    A non-negative float32 orders as its bits do. The first pass counts the upper halves of the bits and finds that of the
    wanted number; the second counts the lower halves behind it.

    Args:
        pieces: Gives the same numbers at every pass, float32.
        density: Share to keep, above 0; 1 keeps everything and reads nothing.

    Examples:
        >>> pieces = [np.array([0.5, -3.0], np.float32), np.array([2.0, -1.0], np.float32)]
        >>> magnitude_threshold(lambda: pieces, density=0.5)
        2.0
    """
    if density == 1:
        return 0.0
    upper = _counts(pieces, lambda bits: bits >> HALF)
    first = _place(upper, max(1, int(density * int(upper.sum()))))
    lower = _counts(pieces, lambda bits: bits[bits >> HALF == first.bin] & (2**HALF - 1))
    second = _place(lower, first.rank)
    return float(np.uint32(first.bin << HALF | second.bin).view(np.float32))


def _counts(pieces: Pieces, half: Callable[[np.ndarray], np.ndarray]) -> Int64[np.ndarray, " bins"]:
    total = np.zeros(2**HALF, np.int64)
    for piece in pieces():
        flat = np.asarray(piece).reshape(-1)
        for start in range(0, flat.size, CHUNK):
            bits = _magnitude_bits(flat[start : start + CHUNK])
            total += np.bincount(half(bits), minlength=2**HALF)
    return total


def _magnitude_bits(values: Float[np.ndarray, " n"]) -> np.ndarray:
    return np.abs(values.astype(np.float32, copy=False)).view(np.uint32)


def _place(counts: Int64[np.ndarray, " bins"], rank: int) -> Place:
    from_above = counts[::-1].cumsum()
    index = int(np.searchsorted(from_above, rank))
    found = len(counts) - 1 - index
    return Place(found, rank - int(from_above[index] - counts[found]))
