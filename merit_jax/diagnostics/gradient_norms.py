"""Concentration of the datasets' gradient norms: where they are alike, cosines and inner products split alike (Thm F.4)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

TRIMS = (0.0, 0.05, 0.1)
"""Shares of the datasets that are left out at either end (the paper's table)."""


class Concentration(NamedTuple):
    """Spread of the norms that are left when some are trimmed.

    Attributes:
        trimmed: Share left out at either end.
        datasets: Norms that are left.
        mean: Their mean.
        std: Their standard deviation (n − 1).
        cv: std / mean.
        ratio: Largest over smallest.
    """

    trimmed: float
    datasets: int
    mean: float
    std: float
    cv: float
    ratio: float


class GradientNorms(NamedTuple):
    """Norms of the datasets' gradients, over the entries that are kept.

    Attributes:
        names: Of the datasets.
        norms: ‖g_t‖₂.
        rows: Concentration, untrimmed first.
    """

    names: tuple[str, ...]
    norms: tuple[float, ...]
    rows: tuple[Concentration, ...]


def gradient_norms(names: Sequence[str], norms: Sequence[float]) -> GradientNorms:
    """Computes the concentration of gradient norms, raw and trimmed.

    Raises:
        ValueError: Fewer than two datasets.
    """
    if len(norms) < 2:
        raise ValueError(f"the spread of gradient norms needs at least 2 datasets, got {len(norms)}")
    ordered = np.sort(np.asarray(norms, np.float64))
    return GradientNorms(tuple(names), tuple(map(float, norms)), tuple(concentration(ordered, trim) for trim in TRIMS))


def concentration(ordered: Float[np.ndarray, " t"], trim: float) -> Concentration:
    """Computes statistics of sorted norms without the `trim` share (rounded down) at either end.

    Examples:
        >>> found = concentration(np.array([1.0, 2.0, 3.0, 4.0, 90.0]), trim=0.2)
        >>> found.datasets, found.mean, found.std, found.ratio
        (3, 3.0, 1.0, 2.0)
    """
    out = int(trim * len(ordered))
    kept = ordered[out : len(ordered) - out]
    mean, std = float(kept.mean()), float(kept.std(ddof=1))
    return Concentration(trim, len(kept), mean, std, std / mean, float(kept[-1] / kept[0]))
