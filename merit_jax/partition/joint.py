"""Joint training: one group."""

import numpy as np

from merit_jax.partition.partitioner import Groups, Samples, Scores, Similarity, checked


def joint(
    scores: Scores, samples: Samples, *, similarity: Similarity = None, groups: int | None = None, seed: int = 0
) -> Groups:
    """Puts every dataset into one group: joint training.

    Raises:
        ValueError: `groups` is another number than 1.

    Examples:
        >>> joint(np.zeros((3, 1)), samples=[5, 2, 9]).tolist()
        [0, 0, 0]
    """
    _, samples = checked(scores, samples)
    if groups not in (None, 1):
        raise ValueError(f"{groups} groups requested, but joint training has one")
    return np.zeros(len(samples), np.int32)
