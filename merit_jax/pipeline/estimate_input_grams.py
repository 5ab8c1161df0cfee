"""`branches/<k>/input_grams/`: Gram matrices of the inputs of a branch's linear maps on its own data, for RegMean."""

from typing import Any

from etils import epath

from merit_jax.checkpoints.readers import OrbaxLeaves, OverlayLeaves, TreeLeaves
from merit_jax.checkpoints.writer import write_streamed
from merit_jax.core import sharding
from merit_jax.core.types import RecordsInputs
from merit_jax.gradients.input_grams import mean_input_grams
from merit_jax.pipeline.branch_calibration import branch_calibration_batches
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage
from merit_jax.pipeline.train_branches import branch_leaves, finished_branch
from merit_jax.workdir.artifact_types import Fill, RecordedFolder
from merit_jax.workdir.checksums import fingerprint


def estimate_input_grams(run: Run, index: int) -> bool:
    """Takes the Gram matrices of a finished branch, at its own parameters and on its own calibration examples.

    The examples are those that its Fisher information would be estimated on. None of them is kept: a matrix of a layer is a sum
    over all of their tokens.

    Returns:
        Whether there was anything to do.

    Raises:
        ValueError: The branch is unfinished, or they were taken from other inputs.
    """
    return _stage(index)(run)


def input_gram_leaves(run: Run, index: int) -> OrbaxLeaves:
    """Opens the Gram matrices of a branch, to be read kernel by kernel.

    Raises:
        ValueError: They are missing, or not as they were written.
    """
    artifact = _artifact(run, index)
    _stage(index).recorded(run)
    artifact.verify()
    return OrbaxLeaves(artifact.folder)


def _stage(index: int) -> Stage:
    """Returns the stage that takes the Gram matrices of a branch."""

    def inputs(run: Run) -> dict[str, Any]:
        branch = fingerprint(finished_branch(run, index)["inputs"])
        return {"branch": branch, "examples": run.config.gradients.examples, "dtype": run.compute_dtype}

    return Stage(
        inputs,
        lambda run: _estimate(run, index),
        lambda run: _artifact(run, index),
        command="launch.run --stages=merge",
    )


def _artifact(run: Run, index: int) -> RecordedFolder:
    return RecordedFolder(run.workdir.branch_input_grams(index), run.workdir.branch_input_grams_record(index))


def _estimate(run: Run, index: int) -> Fill:
    if not isinstance(run.model, RecordsInputs):
        raise ValueError("merge.method = 'regmean': the model cannot record the inputs of its kernels")
    found = mean_input_grams(
        run.model.input_grams,
        run.place(OverlayLeaves(run.theta0.leaves(), branch_leaves(run, index))),
        branch_calibration_batches(run, index),
        trainable=run.config.train.trainable,
        place=run.place_batch,
    )
    leaves = TreeLeaves({path: sharding.to_host(leaf) for path, leaf in found.items()})

    def fill(folder: epath.Path) -> dict[str, Any]:
        write_streamed(folder, leaves.paths(), leaves.read)
        return {}

    return fill
