"""Inner products of gradient rows in one pass over their coordinates, whatever their scales."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from threadpoolctl import threadpool_limits

from merit_jax.conflict.rows import Rows, blocks

LEAST, MOST = -126, 126
"""Exponents by which a row is scaled: 2^-e is a normal float32."""

SAFE = (2.0**-80, 2.0**100)
"""Squared norms for which float32 products of rows neither overflow nor lose entries that count."""


MOST_CORES = 8
"""Cores that multiply at most: each holds a block, and memory's bandwidth ends before that."""


class Products(NamedTuple):
    """Inner products of scaled rows `ĝ_i = 2^-e_i g_i`.

    Attributes:
        inner: `⟨ĝ_i, ĝ_j⟩` of the rows from `first` on with all rows.
        squares: `‖ĝ_j‖²`.
        exponents: e_j.
        broken: Whether the row has an entry that is not finite.
    """

    inner: Float[np.ndarray, "m t"]
    squares: Float[np.ndarray, " t"]
    exponents: Int[np.ndarray, " t"]
    broken: Bool[np.ndarray, " t"]


def inner_products(rows: Rows, first: int = 0) -> Products:
    """Products of the rows from `first` on with all rows: float32 within a block, float64 from block to block.

    A row is taken as it is while its squares are `SAFE`. One that leaves this range is scaled from there on by a power of two
    that follows its largest entry so far, and so are its sums: nothing is read twice. Each core reads and multiplies blocks of
    its own, so that it never waits for a reader or for the other cores.
    """
    cores = min(_cores(), MOST_CORES)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as pool:
        sums, *others = pool.map(partial(_sums, rows, first, cores), range(cores))
    for other in others:
        sums.join(other)
    return sums.products()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sums(rows: Rows, first: int, cores: int, core: int) -> "_Sums":
    """What one core adds up: of every `cores` blocks, the one numbered `core`."""
    sums = _Sums(len(rows), first)
    for block in blocks(rows, core, cores):
        sums.add(block)
    return sums


class _Sums:
    """Running sums over blocks of coordinates, and the scale of each row."""

    def __init__(self, rows: int, first: int) -> None:
        self.first = first
        self.inner = np.zeros((rows - first, rows))
        self.squares = np.zeros(rows)
        self.exponents = np.zeros(rows, np.int64)
        self.scaled, self.broken = np.zeros(rows, bool), np.zeros(rows, bool)

    def add(self, block: Float[np.ndarray, "t w"]) -> None:
        """Adds the products of one block, which is scaled in place."""
        self._scale(block, self.scaled)
        inner, squares = self._multiply(block)
        low, high = SAFE
        unsafe = ~self.scaled & (~(squares <= high) | (self.squares + squares < low))
        unsafe[unsafe] = block[unsafe].any(axis=1)
        if unsafe.any():
            self.exponents[unsafe & (self.squares == 0)] = LEAST
            self.scaled |= unsafe
            self._scale(block, unsafe)
            inner, squares = self._multiply(block)
        self.inner += inner
        self.squares += squares

    def _multiply(self, block: Float[np.ndarray, "t w"]) -> tuple[Float[np.ndarray, "m t"], Float[np.ndarray, " t"]]:
        with np.errstate(over="ignore", invalid="ignore"):
            inner = block[self.first :] @ block.T
            return inner, np.vecdot(block, block) if self.first else inner.diagonal()

    def _scale(self, block: Float[np.ndarray, "t w"], chosen: Bool[np.ndarray, " t"]) -> None:
        """Divides chosen rows by the power of two above their largest entry so far; their sums follow."""
        for i in np.flatnonzero(chosen).tolist():
            largest = np.maximum(block[i].max(), -block[i].min())
            if not np.isfinite(largest):
                self.broken[i], block[i] = True, 0
            elif largest:
                self._raise(i, min(max(int(np.frexp(largest)[1]), LEAST), MOST))
            block[i] *= np.float32(2.0 ** -self.exponents[i])

    def _raise(self, i: int, exponent: int) -> None:
        """Gives row i at least this exponent."""
        if exponent <= self.exponents[i]:
            return
        factor = 2.0 ** float(self.exponents[i] - exponent)
        self.inner[:, i] *= factor
        if i >= self.first:
            self.inner[i - self.first] *= factor
        self.squares[i] *= factor**2
        self.exponents[i] = exponent

    def join(self, other: "_Sums") -> None:
        """Adds the sums of other blocks, on the larger of both scales."""
        for i in range(len(self.squares)):
            self._raise(i, int(other.exponents[i]))
            other._raise(i, int(self.exponents[i]))
        self.inner += other.inner
        self.squares += other.squares
        self.broken |= other.broken

    def products(self) -> Products:
        """The sums."""
        return Products(self.inner, self.squares, self.exponents, self.broken)
