"""K-means clusters of datasets, which may be unbalanced."""

import numpy as np

from merit_jax.partition.partitioner import Groups, Samples, Scores, Similarity, checked, enough


def kmeans(
    scores: Scores, samples: Samples, *, similarity: Similarity = None, groups: int | None = None, seed: int = 0
) -> Groups:
    """Clusters the representation z by k-means (10 seeded starts, the best is kept), numbered by first appearance.

    Raises:
        ValueError: Fewer distinct datasets than clusters.

    Examples:
        >>> scores = np.array([[0.0], [9.0], [0.1], [9.1], [0.2]])
        >>> kmeans(scores, samples=[1, 1, 1, 1, 1], groups=2).tolist()
        [0, 1, 0, 1, 0]
    """
    from sklearn.cluster import KMeans  # imported here: it takes a second, and hardly any command needs it

    scores, samples = checked(scores, samples)
    count = 2 ** scores.shape[1] if groups is None else groups
    enough(len(samples), count)
    distinct = len(np.unique(scores, axis=0))
    if distinct < count:
        raise ValueError(
            f"k-means cannot make {count} clusters of {distinct} distinct points; ask for at most {distinct} groups"
        )
    labels = KMeans(n_clusters=count, n_init=10, random_state=seed).fit_predict(scores)
    present, first = np.unique(labels, return_index=True)
    if len(present) < count:
        raise ValueError(f"k-means left {count - len(present)} of {count} clusters empty; ask for fewer groups")
    return np.argsort(np.argsort(first))[labels].astype(np.int32)
