"""Attention entropies by definition, in float64, from attention probabilities."""

from collections.abc import Sequence

import numpy as np


def entropies_of(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropies [b, t, heads] of probabilities [b, heads, t, s] by the log of the keys above 0, and where there are two keys."""
    wide = np.float64(weights)
    keys = (wide > 0).sum(-1)
    entropy = -np.where(wide > 0, wide * np.log(np.where(wide > 0, wide, 1)), 0).sum(-1)
    values = np.where(keys > 1, entropy / np.log(np.maximum(keys, 2)), 0)
    return np.moveaxis(values, 1, 2), np.moveaxis(keys > 1, 1, 2)[..., 0]


def mean_entropies(layers: Sequence[np.ndarray], segments: np.ndarray) -> np.ndarray:
    """Mean entropies [layers, b, heads] over the real queries of each row that see two keys or more."""
    found = []
    for weights in layers:
        values, counted = entropies_of(weights)
        real = counted & (np.asarray(segments) > 0)
        found.append((values * real[..., None]).sum(1) / np.maximum(real.sum(1), 1)[:, None])
    return np.stack(found)
