"""Orders in which heads can be pruned: HIES, its two halves alone, and the baselines."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from merit_jax.core.heads import ByHead
from merit_jax.pruning.scores import HeadScores, hies


class HeadFacts(NamedTuple):
    """Everything that a criterion may look at.

    Attributes:
        scores: HIS and AE on calibration examples.
        norms: Part -> Frobenius norm of the weights of each head.
        alpha: Weight of HIS in HIES.
        seed: Of a random order.
    """

    scores: HeadScores
    norms: ByHead
    alpha: float
    seed: int


def random_order(facts: HeadFacts) -> ByHead:
    """Returns numbers in [0, 1), by the seed."""
    rng = np.random.default_rng(facts.seed)
    return {part: rng.random(np.shape(norms)) for part, norms in facts.norms.items()}


CRITERIA: Mapping[str, Callable[[HeadFacts], ByHead]] = {
    "hies": lambda facts: hies(facts.scores, facts.alpha),
    "importance": lambda facts: hies(facts.scores, 1.0),
    "entropy": lambda facts: hies(facts.scores, 0.0),
    "magnitude": lambda facts: facts.norms,
    "random": random_order,
}
"""Name -> a number for each head; those with the lowest are pruned. "importance" is HIS, "entropy" 1 - AE."""
