"""`branches/<k>/fisher/`: the diagonal Fisher information of a branch on its own data, for merging by it."""

from merit_jax.checkpoints.readers import OverlayLeaves
from merit_jax.core.types import Leaves
from merit_jax.gradients.fisher import diagonal_fisher
from merit_jax.pipeline.branch_calibration import branch_calibration_batches
from merit_jax.pipeline.estimated_statistic import EstimatedStatistic
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_leaves
from merit_jax.workdir.artifact_types import RecordedFolder


def _compute(run: Run, index: int) -> Leaves:
    trained = branch_leaves(run, index)
    return diagonal_fisher(
        run.loss_fn,
        run.place(OverlayLeaves(run.theta0.leaves(), trained)),
        branch_calibration_batches(run, index),
        trainable=run.config.train.trainable,
        place=run.place_batch,
    )


fisher = EstimatedStatistic(
    _compute,
    lambda run, index: RecordedFolder(run.workdir.branch_fisher(index), run.workdir.branch_fisher_record(index)),
)
"""Fisher information on at most `gradients.examples` examples of each of the branch's datasets, drawn as for the gradients; of a
slice of a dataset, the slice's only."""
