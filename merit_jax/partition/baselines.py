"""Unbalanced ways to group datasets: k-means, and the paper's greedy conflict-induced split.

Signatures are those of `merit_jax.partition.median_split.Partitioner`.
"""

import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.partition.validation import Groups, Samples, checked, enough


def kmeans(
    scores: Float[Array, "t r"],
    samples: Samples,
    *,
    similarity: Float[Array, "t t"] | None = None,
    groups: int | None = None,
    seed: int = 0,
) -> Groups:
    """K-means clusters of the representation z (10 seeded starts, the best is kept), numbered by first appearance.

    Raises:
        ValueError: Fewer distinct datasets than clusters.
    """
    from sklearn.cluster import KMeans  # here, for importing it takes a second, and hardly any command needs it

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


def conflict_induced(
    scores: Float[Array, "t r"],
    samples: Samples,
    *,
    similarity: Float[Array, "t t"] | None = None,
    groups: int | None = None,
    seed: int = 0,
    objective: str = "within",
) -> Groups:
    """Greedy split by pairwise conflict, MERIT's "conflict-induced" baseline.

    The most conflicting pair seeds the first two groups; each further seed has the least mean cosine to those before.
    Then, one at a time, the dataset and the group of least mean cosine are joined. Ties: lowest dataset, lowest group.

    Args:
        objective: "within" takes that mean over the group's own members, so groups gather datasets that disagree;
            "between" takes it over the members of the other groups, so groups disagree with each other. The paper words
            the method both ways.

    Raises:
        ValueError: No similarity, an unknown objective, or fewer datasets than groups.
    """
    scores, samples = checked(scores, samples)
    count = 2 ** scores.shape[1] if groups is None else groups
    enough(len(samples), count)
    if objective not in ("within", "between"):
        raise ValueError(f"unknown objective {objective!r}; known: between, within")
    if similarity is None:
        raise ValueError(
            f"conflict_induced needs the similarity matrix of its {len(samples)} datasets; got none (where it was too "
            "large to keep: raise conflict.similarity_bytes, delete conflict.npz and run the conflict stage again)"
        )
    C = np.asarray(similarity, np.float64)
    result = np.full(len(C), -1, np.int32)
    result[_seeds(C, count)] = np.arange(count)
    while (result < 0).any():
        dataset, group = _next(C, result, count, objective)
        result[dataset] = group
    return result


def _seeds(C: Float[np.ndarray, "t t"], count: int) -> list[int]:
    """The most conflicting pair, then whichever dataset has the least summed cosine to the seeds so far."""
    off_diagonal = np.where(np.eye(len(C), dtype=bool), np.inf, C)
    chosen = sorted(int(i) for i in np.unravel_index(np.argmin(off_diagonal), C.shape))[:count]
    while len(chosen) < count:
        total = C[:, chosen].sum(axis=1)
        total[chosen] = np.inf
        chosen.append(int(np.argmin(total)))
    return chosen


def _next(C: Float[np.ndarray, "t t"], result: Groups, count: int, objective: str) -> tuple[int, int]:
    """The unassigned dataset and the group to join next."""
    member = (result[:, None] == np.arange(count)).astype(np.float64)
    if objective == "between" and count > 1:
        member = (result >= 0)[:, None] - member
    cost = C @ member / member.sum(axis=0)
    cost[result >= 0] = np.inf
    dataset, group = np.unravel_index(np.argmin(cost), cost.shape)
    return int(dataset), int(group)
