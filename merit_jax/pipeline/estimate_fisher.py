"""`branches/<k>/fisher/`: the diagonal Fisher information of a branch on its own data, for merging by it."""

from typing import Any

from etils import epath

from merit_jax.checkpoints.readers import OrbaxLeaves, OverlayLeaves, TreeLeaves
from merit_jax.checkpoints.writer import write_streamed
from merit_jax.core import sharding
from merit_jax.gradients.fisher import diagonal_fisher
from merit_jax.pipeline.branch_calibration import branch_calibration_batches
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage
from merit_jax.pipeline.train_branches import branch_leaves, finished_branch
from merit_jax.workdir.artifact_types import Fill, RecordedFolder
from merit_jax.workdir.checksums import fingerprint


def estimate_fisher(run: Run, index: int) -> bool:
    """Estimates the Fisher information of a finished branch, at its own parameters and on its own calibration examples.

    At most `gradients.examples` examples of each of its datasets, drawn as for the gradients; of a slice of a dataset, the
    slice's only.

    Returns:
        Whether there was anything to do.

    Raises:
        ValueError: The branch is unfinished, or it was estimated from other inputs.
    """
    return _stage(index)(run)


def fisher_leaves(run: Run, index: int) -> OrbaxLeaves:
    """Opens the Fisher information of a branch, to be read leaf by leaf.

    Raises:
        ValueError: It is missing, or not as it was written.
    """
    artifact = _artifact(run, index)
    _stage(index).recorded(run)
    artifact.verify()
    return OrbaxLeaves(artifact.folder)


def _stage(index: int) -> Stage:
    """Returns the stage that estimates the Fisher information of a branch."""

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
    return RecordedFolder(run.workdir.branch_fisher(index), run.workdir.branch_fisher_record(index))


def _estimate(run: Run, index: int) -> Fill:
    trained = branch_leaves(run, index)
    found = diagonal_fisher(
        run.loss_fn,
        run.place(OverlayLeaves(run.theta0.leaves(), trained)),
        branch_calibration_batches(run, index),
        trainable=run.config.train.trainable,
        place=run.place_batch,
    )
    leaves = TreeLeaves({path: sharding.to_host(leaf) for path, leaf in found.items()})

    def fill(folder: epath.Path) -> dict[str, Any]:
        write_streamed(folder, leaves.paths(), leaves.read)
        return {}

    return fill
