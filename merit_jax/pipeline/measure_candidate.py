"""Size of a method on a mixture, and agreement of its branches' gradients, before training."""

from typing import Any, NamedTuple

import numpy as np

from merit_jax.advice.features import method_features
from merit_jax.advice.sharing import GradientGram, branch_agreement
from merit_jax.partition import ASSIGNMENTS, Partition, uses_gradients
from merit_jax.pipeline.partition_mixture import partition_mixture
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_batches


class Candidate(NamedTuple):
    """A method on a mixture.

    Attributes:
        branches: K.
        steps: Optimizer steps of each branch.
        tokens: Supervised tokens of each branch, all epochs.
        read: Tokens that each branch reads.
        agreement: Mean cosine of the gradients of the branches' data.
        features: By the names of `advice.features.METHOD`.
    """

    branches: int
    steps: tuple[int, ...]
    tokens: tuple[int, ...]
    read: tuple[int, ...]
    agreement: float
    features: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        return self._asdict()


def measure_candidate(run: Run, gram: GradientGram) -> Candidate:
    """Divides the mixture as the run's config says, without writing anything, and measures the branches.

    Args:
        run: A run of the method, whose similarities are measured.
        gram: Inner products of the datasets' gradients.

    Raises:
        ValueError: The datasets are too few for its branches.
    """
    cfg = run.config.partition
    made = Partition.from_dict(partition_mixture.compute(run), "the partition")
    batches = [branch_batches(run, branch) for branch in made.branches]
    agreement = branch_agreement(gram, _tokens(run, made))
    by_dataset = cfg.method not in ASSIGNMENTS
    features = method_features(
        branches=len(made.branches),
        by_dataset=by_dataset,
        by_conflict=uses_gradients(cfg.method),
        core=float(cfg.core),
        agreement=agreement,
    )
    return Candidate(
        len(made.branches),
        tuple(found.steps for found in batches),
        tuple(found.tokens for found in batches),
        tuple(int(found.read.sum()) for found in batches),
        agreement,
        features,
    )


def _tokens(run: Run, made: Partition) -> np.ndarray:
    """Returns the supervised tokens of each dataset in each branch, f64[K, T]."""
    place, counts = {name: t for t, name in enumerate(run.names)}, run.tokens
    found = np.zeros((len(made.branches), len(place)))
    for own, branch in zip(found, made.branches, strict=True):
        for share in branch.shares:
            own[place[share.dataset]] += share.share * counts[place[share.dataset]]
    return found
