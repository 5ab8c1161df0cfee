"""The statistics of branches that a run's merge operator needs besides their parameters."""

from collections.abc import Callable, Mapping, Sequence

from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.merging.statistics import FISHER, INPUT_GRAMS, SECOND_MOMENT, Statistic
from merit_jax.pipeline.estimate_fisher import fisher
from merit_jax.pipeline.estimate_input_grams import input_grams
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_second_moment


def branch_statistics(run: Run, statistic: Statistic | None, branches: Sequence[int | None]) -> list[OrbaxLeaves]:
    """Opens the statistic of each branch, estimated where it is missing and can be.

    Args:
        run: The run that trained the branches.
        statistic: What the operator needs; None for nothing.
        branches: Their numbers; None for a model that is no branch.

    Raises:
        ValueError: It is missing and cannot be estimated, or is not as it was written, or was made from other inputs.
    """
    if statistic is None:
        return []
    numbers = [k for k in branches if k is not None]
    for k in numbers:
        if (estimate := ESTIMATED.get(statistic.name)) is not None:
            estimate(run, k)
    return [OPENED[statistic.name](run, k) for k in numbers]


ESTIMATED: Mapping[str, Callable[[Run, int], bool]] = {
    FISHER.name: fisher.estimate,
    INPUT_GRAMS.name: input_grams.estimate,
}
"""Name of a statistic -> the stage that estimates it for a branch."""

OPENED: Mapping[str, Callable[[Run, int], OrbaxLeaves]] = {
    FISHER.name: fisher.leaves,
    INPUT_GRAMS.name: input_grams.leaves,
    SECOND_MOMENT.name: branch_second_moment,
}
"""Name of a statistic -> its reader."""
