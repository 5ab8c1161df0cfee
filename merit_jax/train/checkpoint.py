"""A branch's state on disk: one Orbax step directory that is complete or absent."""

from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from merit_jax import tree
from merit_jax.artifact import whole_checkpoint
from merit_jax.train.step import TrainState
from merit_jax.types import Leaves
from merit_jax.workdir import absolute

PARAMS, OPTIMIZER, PROGRESS = "params", "optimizer", "progress"


class Progress(NamedTuple):
    """Where a branch stands, beside its arrays.

    Attributes:
        step: Optimizer steps taken.
        tokens: Supervised tokens trained on so far, counted exactly.
        data: State of the data iterator, which has advanced past those steps.
        inputs: Fingerprint of everything the branch was made from.
    """

    step: int
    tokens: int
    data: Any
    inputs: str


class Checkpoints:
    """The checkpoints of one branch; only the newest is kept.

    Args:
        directory: `branches/<k>/checkpoints` of a workdir.
    """

    def __init__(self, directory: epath.PathLike) -> None:
        self.directory = absolute(directory)
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=(PARAMS, OPTIMIZER, PROGRESS),
            options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False),
        )

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Progress, *, final: bool = False) -> None:
        """Writes the state; a final one is for merging only and leaves the optimizer out."""
        items = {
            PARAMS: ocp.args.StandardSave(tree.unflatten(state.leaves)),
            PROGRESS: ocp.args.JsonSave(progress._asdict()),
        }
        if not final:
            items[OPTIMIZER] = ocp.args.StandardSave(state.optimizer)
        self._manager.save(progress.step, args=ocp.args.Composite(**items))

    def progress(self) -> Progress:
        """The newest checkpoint's progress, without its arrays."""
        args = ocp.args.Composite(**{PROGRESS: ocp.args.JsonRestore()})
        with whole_checkpoint(self._newest()):
            return Progress(**self._manager.restore(self.latest(), args=args)[PROGRESS])

    def restore(self, like: TrainState) -> TrainState:
        """The newest state, with the shapes, dtypes and shardings of `like`, on whatever devices those are."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(
            **{
                PARAMS: ocp.args.StandardRestore(tree.unflatten(abstract.leaves)),
                OPTIMIZER: ocp.args.StandardRestore(abstract.optimizer),
            }
        )
        with whole_checkpoint(self._newest()):
            items = self._manager.restore(self.latest(), args=args)
        leaves: Leaves = tree.flatten(items[PARAMS])
        return TrainState(jax.numpy.int32(self.latest()), leaves, items[OPTIMIZER])

    def _newest(self) -> epath.Path:
        return self.directory / str(self.latest())

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()


def params_directory(directory: epath.PathLike) -> epath.Path:
    """Orbax item with the parameters of the newest complete checkpoint under `directory`.

    Raises:
        ValueError: There is none.
    """
    steps = [step.step for step in ocp.path.step.standard_name_format().find_all(directory)]
    if not steps:
        raise ValueError(f"no finished checkpoint in {directory}; delete the branch's folder and train it again")
    return epath.Path(directory) / str(max(steps)) / PARAMS
