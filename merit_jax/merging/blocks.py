"""Entry-by-entry arithmetic on leaves in mapped files, in blocks that stay in a processor's cache, on all cores."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

BLOCK = 2**17
"""Entries of a block: those of five models and two results in float32 take 3.5 MiB."""


def in_blocks(
    compute: Callable[[Sequence[np.ndarray]], np.ndarray], views: Sequence[np.ndarray], dtype: np.dtype
) -> np.ndarray | None:
    """Computes a leaf entry by entry from others of its shape.

    Args:
        compute: Blocks of the leaves, one-dimensional and in `dtype` -> the same block of the result.
        views: The leaves, of any dtype that casts to `dtype`.
        dtype: The dtype to compute in.

    Returns:
        The result; None where it or the first of the leaves is not finite.

    Examples:
        >>> in_blocks(lambda parts: parts[0] + parts[1], [np.ones((2, 2)), np.float32([[1, 2], [3, 4]])], np.dtype("f4")).tolist()
        [[2.0, 3.0], [4.0, 5.0]]
    """
    flat = [view.reshape(-1) for view in views]
    result = np.empty(views[0].shape, dtype)
    out = result.reshape(-1)

    def block(start: int) -> bool:
        stop = start + BLOCK
        parts = [leaf[start:stop].astype(dtype, copy=False) for leaf in flat]
        with np.errstate(over="ignore", invalid="ignore"):
            out[start:stop] = compute(parts)
        return bool(np.isfinite(out[start:stop]).all() and np.isfinite(parts[0]).all())

    starts = range(0, len(out), BLOCK)
    sound = map(block, starts) if len(starts) < 2 else _threads().map(block, starts)
    return result if all(sound) else None


@cache
def _threads() -> ThreadPoolExecutor:
    """Returns a thread for each core, as NumPy lets others run while it computes."""
    return ThreadPoolExecutor(os.cpu_count(), "blocks")
