"""Checkpoints of a branch: one Orbax step directory that is complete or absent."""

from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from merit_jax.core import tree
from merit_jax.core.errors import UnfinishedError
from merit_jax.core.types import Leaves, TrainState
from merit_jax.workdir.artifacts import read_json, whole_checkpoint, write_json, written_checkpoint
from merit_jax.workdir.checksums import file_checksums, verify_checksums
from merit_jax.workdir.fences import pass_fence
from merit_jax.workdir.paths import absolute

PARAMS, OPTIMIZER, PROGRESS = "params", "optimizer", "progress"
SUMS = "checksums.json"
"""File next to `checkpoints/`: the step of the newest checkpoint, the sha256 of its files, and the branch's inputs."""


class Progress(NamedTuple):
    """The progress of a branch, stored with its arrays.

    Attributes:
        step: Optimizer steps taken.
        tokens: Supervised tokens trained on, counted exactly.
        data: State of the data iterator, which has advanced past those steps.
        inputs: Fingerprint of everything the branch was made from.
        fingerprint: Of the trained parameters, in the last checkpoint of a branch; else "".
    """

    step: int
    tokens: int
    data: Any
    inputs: str
    fingerprint: str = ""


class Checkpoints:
    """The checkpoints of one branch; only the newest is kept, with the checksums of its files next to it.

    Args:
        directory: `branches/<k>/checkpoints` of a workdir.
    """

    def __init__(self, directory: epath.PathLike) -> None:
        self.directory, self._checked = absolute(directory), False
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=(PARAMS, OPTIMIZER, PROGRESS),
            options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False),
        )

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Progress, *, final: bool = False) -> None:
        """Writes the state; a final one is for merging only and leaves the optimizer out."""
        items = {
            PARAMS: ocp.args.StandardSave(tree.unflatten(state.leaves)),
            PROGRESS: ocp.args.JsonSave(progress._asdict()),
        }
        if not final:
            items[OPTIMIZER] = ocp.args.StandardSave(state.optimizer)
        pass_fence(self.directory)
        with written_checkpoint(self.directory):
            self._manager.save(progress.step, args=ocp.args.Composite(**items))
        self._withdraw_if_lost(progress.step)
        _record_sums(self.directory, progress.step, progress.inputs)

    def _withdraw_if_lost(self, step: int) -> None:
        """Removes a checkpoint that was written while another process took the branch, which would resume from it."""
        try:
            pass_fence(self.directory)
        except UnfinishedError:
            if _sums_of(self.directory, step) is None:
                (self.directory / str(step)).rmtree(missing_ok=True)
            raise

    def progress(self) -> Progress:
        """Reads the newest checkpoint's progress, without its arrays.

        Raises:
            ValueError: The checkpoint is not as it was written.
        """
        args = ocp.args.Composite(**{PROGRESS: ocp.args.JsonRestore()})
        recorded = self._check()
        with whole_checkpoint(self._newest()):
            progress = Progress(**self._manager.restore(self.latest(), args=args)[PROGRESS])
        if not recorded:
            _record_sums(self.directory, progress.step, progress.inputs)
        return progress

    def restore(self, like: TrainState) -> TrainState:
        """Reads the newest state, with the shapes, dtypes and shardings of `like`, on whatever devices those are."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(
            **{
                PARAMS: ocp.args.StandardRestore(tree.unflatten(abstract.leaves)),
                OPTIMIZER: ocp.args.StandardRestore(abstract.optimizer),
            }
        )
        self._check()
        with whole_checkpoint(self._newest()):
            items = self._manager.restore(self.latest(), args=args)
        leaves: Leaves = tree.flatten(items[PARAMS])
        return TrainState(jax.numpy.int32(self.latest()), leaves, items[OPTIMIZER])

    def _check(self) -> bool:
        """Verifies the newest checkpoint once; False if it has no checksums, as a killed run may leave it."""
        if not self._checked:
            record = _sums_of(self.directory, self.latest())
            if record is None:
                return False
            verify_checksums(self._newest(), record["files"])
            self._checked = True
        return True

    def _newest(self) -> epath.Path:
        return self.directory / str(self.latest())

    def close(self) -> None:
        """Waits for writes to end."""
        self._manager.close()


def check_branch(checkpoints: epath.PathLike, inputs: str) -> None:
    """Verifies a finished branch, which may be a copy from elsewhere, by the checksums of its files: each is read once.

    Args:
        checkpoints: `branches/<k>/checkpoints` of a workdir.
        inputs: Fingerprint that the branch must be made from.

    Raises:
        ValueError: There are no checksums, they are of another branch, or a file is not as it was written.
    """
    directory = epath.Path(checkpoints)
    step = params_directory(directory).parent
    record = _sums_of(directory, int(step.name))
    if record is None:
        raise ValueError(
            f"{directory.parent / SUMS} has no checksums of checkpoint {step.name}; copy the whole folder of the branch, or "
            "delete its done.json and run launch.branch for it, which takes the checkpoint as it is"
        )
    if record["inputs"] != inputs:
        raise ValueError(
            f"{directory.parent / SUMS} is of a branch made from another theta0, data or configuration; copy the whole folder "
            "of the branch again"
        )
    verify_checksums(step, record["files"])


def _sums_of(directory: epath.Path, step: int | None) -> dict[str, Any] | None:
    """The record of this checkpoint; None if there is none, or it is of an earlier one."""
    path = directory.parent / SUMS
    record = read_json(path) if path.exists() else {"step": None}
    return record if record.get("step") == step else None


def _record_sums(directory: epath.Path, step: int, inputs: str) -> None:
    if jax.process_index() == 0:
        files = file_checksums(directory / str(step))
        write_json(directory.parent / SUMS, {"inputs": inputs, "step": step, "files": files})


def params_directory(directory: epath.PathLike) -> epath.Path:
    """Finds the Orbax item with the parameters of the newest complete checkpoint under `directory`.

    Raises:
        ValueError: There is none.
    """
    steps = [step.step for step in ocp.path.step.standard_name_format().find_all(directory)]
    if not steps:
        raise ValueError(f"no finished checkpoint in {directory}; delete the branch's folder and train it again")
    return epath.Path(directory) / str(max(steps)) / PARAMS
