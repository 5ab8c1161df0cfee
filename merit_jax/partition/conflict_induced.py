"""The paper's greedy conflict-induced split, which may be unbalanced."""

import numpy as np
from jaxtyping import Float

from merit_jax.partition.partitioner import Groups, Samples, Scores, Similarity, checked, enough, needed


def conflict_induced(
    scores: Scores,
    samples: Samples,
    *,
    similarity: Similarity = None,
    groups: int | None = None,
    seed: int = 0,
    objective: str = "within",
) -> Groups:
    """Splits greedily by pairwise conflict, MERIT's "conflict-induced" baseline.

    The most conflicting pair seeds the first two groups; each further seed has the least mean cosine to those before.
    Then, one at a time, the dataset and the group of least mean cosine are joined. Ties: lowest dataset, lowest group.

    Args:
        objective: "within" takes that mean over the group's own members, so groups gather datasets that disagree;
            "between" takes it over the members of the other groups, so groups disagree with each other. The paper words
            the method both ways.

    Raises:
        ValueError: No similarity, an unknown objective, or fewer datasets than groups.

    Examples:
        >>> C = np.array([[1, 0.8, -0.9, -0.7], [0.8, 1, -0.6, -0.8], [-0.9, -0.6, 1, 0.5], [-0.7, -0.8, 0.5, 1]])
        >>> conflict_induced(np.zeros((4, 1)), [1, 1, 1, 1], similarity=C, groups=2).tolist()
        [0, 1, 1, 0]
        >>> conflict_induced(np.zeros((4, 1)), [1, 1, 1, 1], similarity=C, groups=2, objective="between").tolist()
        [0, 0, 1, 1]
    """
    scores, samples = checked(scores, samples)
    count = 2 ** scores.shape[1] if groups is None else groups
    enough(len(samples), count)
    if objective not in ("within", "between"):
        raise ValueError(f"unknown objective {objective!r}; known: between, within")
    C = needed(similarity, len(samples), "conflict_induced")
    result = np.full(len(C), -1, np.int32)
    result[_seeds(C, count)] = np.arange(count)
    while (result < 0).any():
        dataset, group = _next(C, result, count, objective)
        result[dataset] = group
    return result


def _seeds(C: Float[np.ndarray, "t t"], count: int) -> list[int]:
    """The most conflicting pair, then whichever dataset has the least summed cosine to those seeds."""
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
