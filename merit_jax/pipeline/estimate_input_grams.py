"""`branches/<k>/input_grams/`: Gram matrices of the inputs of a branch's linear maps on its own data, for RegMean."""

from merit_jax.checkpoints.readers import OverlayLeaves
from merit_jax.core.types import Leaves, RecordsInputs
from merit_jax.gradients.input_grams import mean_input_grams
from merit_jax.pipeline.branch_calibration import branch_calibration_batches
from merit_jax.pipeline.estimated_statistic import EstimatedStatistic
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_leaves
from merit_jax.workdir.artifact_types import RecordedFolder


def _compute(run: Run, index: int) -> Leaves:
    if not isinstance(run.model, RecordsInputs):
        raise ValueError("merge.method = 'regmean': the model cannot record the inputs of its kernels")
    return mean_input_grams(
        run.model.input_grams,
        run.place(OverlayLeaves(run.theta0.leaves(), branch_leaves(run, index))),
        branch_calibration_batches(run, index),
        trainable=run.config.train.trainable,
        place=run.place_batch,
    )


input_grams = EstimatedStatistic(
    _compute,
    lambda run, index: RecordedFolder(
        run.workdir.branch_input_grams(index), run.workdir.branch_input_grams_record(index)
    ),
)
"""Gram matrices on the examples that Fisher information would be estimated on. None of them is kept: a matrix of a layer is a sum
over all of their tokens."""
