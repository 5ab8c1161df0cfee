"""Calibration size: the number of examples at which a dataset's gradient is signal (MERIT §4)."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Batch, LossFn, Params
from merit_jax.diagnostics.bootstrap import bootstrap_cosines, examples_needed, gram, spearman_brown, split_half
from merit_jax.gradients.compressor import Compressor
from merit_jax.gradients.estimate import checked, gradient_rows


class DatasetCalibration(NamedTuple):
    """One dataset's gradient against the number of examples it is a mean of.

    Attributes:
        name: Of the dataset.
        examples: In its pool.
        cosines: Mean cosine with the pool's gradient for every size, over bootstrap draws; NaN above the pool.
        reliability: Mean cosine of the gradients of two disjoint halves of the pool, over random halvings.
        reliability_std: Standard deviation over the halvings.
        expected: Reliability at every size by the Spearman-Brown formula: the cosine to expect between the gradients of two
            independent samples of that size. Its root is the cosine to expect with the gradient of infinitely many.
        needed: Examples at which the formula reaches the target; infinite where the halves do not agree at all.
    """

    name: str
    examples: int
    cosines: Float[np.ndarray, " sizes"]
    reliability: float
    reliability_std: float
    expected: Float[np.ndarray, " sizes"]
    needed: float


class Calibration(NamedTuple):
    """Cosine to the reference gradient against the number of examples.

    Attributes:
        sizes: n, examples.
        cosine: Mean over datasets; NaN where no pool is so large.
        std: Standard deviation over datasets (n − 1), as the paper's table.
        low: 2.5th percentile of the mean over bootstrap draws.
        high: 97.5th percentile.
        target: Reliability at `needed` examples.
        datasets: Each dataset.
    """

    sizes: tuple[int, ...]
    cosine: Float[np.ndarray, " sizes"]
    std: Float[np.ndarray, " sizes"]
    low: Float[np.ndarray, " sizes"]
    high: Float[np.ndarray, " sizes"]
    target: float
    datasets: tuple[DatasetCalibration, ...]


class Blocks(NamedTuple):
    """A dataset's pool of examples, in random blocks of one size.

    Attributes:
        name: Of the dataset.
        batches: Per block, its examples in batches of fixed shapes.
    """

    name: str
    batches: Sequence[Iterable[Batch]]


def calibration(
    loss_fn: LossFn,
    params: Params,
    pools: Sequence[Blocks],
    *,
    block: int,
    sizes: Sequence[int],
    draws: int = 200,
    target: float = 0.9,
    seed: int = 0,
    trainable: Sequence[str] = (".*",),
    average: str = "example",
    reduce: Compressor,
    place: Callable[[Batch], Batch] = lambda batch: batch,
) -> Calibration:
    """Bootstraps each dataset's gradient from the gradients of blocks of its examples, each taken once.

    A sample of n examples is n / block blocks, drawn with replacement; the reference is the gradient of the whole pool, whose own
    noise counts as signal, so with a small pool the cosines are too high: read them together with the reliability, which
    compares disjoint halves. Blocks are weighted alike.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]), one example per row.
        params: theta0.
        pools: Per dataset, its blocks; the reduced gradients of one dataset's blocks are on the host together.
        block: Examples of a block.
        sizes: n, multiples of `block`, rising.
        draws: Bootstrap samples of every size, and random halvings.
        target: Reliability to reach, in (0, 1).
        seed: Of the draws.
        trainable: Regular expressions over parameter paths.
        average: "example" or "token", inside a block.
        reduce: Gradient leaves -> entries that are kept.
        place: Puts a stacked batch, leaves [1, rows, ...], on the devices.

    Raises:
        ValueError: An option is out of range, a pool has fewer than two blocks, or a gradient is zero or not finite.
    """
    _check(pools, block, sizes, draws, target)

    rows = gradient_rows(
        loss_fn,
        params,
        [batches for pool in pools for batches in pool.batches],
        trainable=trainable,
        average=average,
        reduce=reduce,
        place=place,
    )
    found = []
    for number, pool in enumerate(pools):
        own = [checked(row, pool.name) for row in itertools.islice(rows, len(pool.batches))]
        K, rng = gram(own), np.random.default_rng([seed, number])
        found.append(_calibrate(pool.name, K, block, sizes, draws, target, rng))
    return _summary(tuple(int(n) for n in sizes), target, found)


def _calibrate(
    name: str,
    K: Float[np.ndarray, "b b"],
    block: int,
    sizes: Sequence[int],
    draws: int,
    target: float,
    rng: np.random.Generator,
) -> tuple[DatasetCalibration, Float[np.ndarray, "sizes draws"]]:
    """One dataset, and its bootstrapped cosines."""
    examples, half = len(K) * block, len(K) // 2 * block
    cosines = np.stack(
        [
            bootstrap_cosines(K, n // block, draws, rng) if n <= examples else np.full(draws, np.nan)
            for n in map(int, sizes)
        ]
    )
    halves = split_half(K, draws, rng)
    rho = float(halves.mean())
    expected = np.asarray(spearman_brown(rho, np.asarray(sizes, np.float64) / half))
    row = DatasetCalibration(
        name, examples, cosines.mean(axis=1), rho, float(halves.std()), expected, examples_needed(rho, half, target)
    )
    return row, cosines


def _summary(
    sizes: tuple[int, ...], target: float, found: Sequence[tuple[DatasetCalibration, np.ndarray]]
) -> Calibration:
    """Means over the datasets whose pools are large enough."""
    cosines = np.stack([draws for _, draws in found])
    nothing = np.full(len(sizes), np.nan)
    mean, std, low, high = nothing.copy(), nothing.copy(), nothing.copy(), nothing.copy()
    for place in range(len(sizes)):
        there = cosines[~np.isnan(cosines[:, place, 0]), place]
        if len(there):
            mean[place], (low[place], high[place]) = there.mean(), np.percentile(there.mean(axis=0), (2.5, 97.5))
        if len(there) > 1:
            std[place] = there.mean(axis=1).std(ddof=1)
    return Calibration(sizes, mean, std, low, high, target, tuple(row for row, _ in found))


def _check(pools: Sequence[Blocks], block: int, sizes: Sequence[int], draws: int, target: float) -> None:
    if block < 1 or not sizes or list(sizes) != sorted(set(sizes)) or any(n < block or n % block for n in sizes):
        raise ValueError(
            f"diagnostics.calibration_sizes = {tuple(sizes)}; expected rising multiples of calibration_block = {block}"
        )
    if draws < 2 or not 0 < target < 1:
        raise ValueError(
            f"diagnostics.bootstrap = {draws}, diagnostics.reliability = {target}; expected at least 2 and in (0, 1)"
        )
    for pool in pools:
        if len(pool.batches) < 2:
            raise ValueError(
                f"dataset {pool.name!r} has fewer than 2 blocks of {block} calibration examples, so no halves to compare; "
                "lower diagnostics.calibration_block"
            )
    if not pools:
        raise ValueError("no dataset to calibrate")
