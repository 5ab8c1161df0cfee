"""Real handwritten digits: scikit-learn's 1,797 pictures of 8x8 pixels."""

import functools

import numpy as np


@functools.cache
def written_digits() -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Returns pictures u8[n, 8, 8] with values up to 16 and the digit that each shows; None without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return None
    digits = load_digits()
    return digits.images.astype(np.uint8), tuple(str(label) for label in digits.target)
