"""Which attention heads of a model can go: scores of heads, and the choice by them (Choi et al., arXiv:2510.13832)."""

from merit_jax.pruning.choice import SPREADS, UNITS, choose, removed_ratio
from merit_jax.pruning.criteria import CRITERIA, HeadFacts
from merit_jax.pruning.scores import HeadScores, HeadSums, head_measure, head_sums, hies, mean_scores

__all__ = [
    "CRITERIA",
    "SPREADS",
    "UNITS",
    "HeadFacts",
    "HeadScores",
    "HeadSums",
    "choose",
    "head_measure",
    "head_sums",
    "hies",
    "mean_scores",
    "removed_ratio",
]
