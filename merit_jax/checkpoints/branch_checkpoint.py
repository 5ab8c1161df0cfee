"""Checkpoints of a branch: one Orbax step directory that is complete or absent, and the checksums of its files."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from merit_jax.checkpoints.readers import LOCAL, OrbaxLeaves
from merit_jax.core import tree
from merit_jax.core.errors import UnfinishedError
from merit_jax.core.types import Leaves, TrainState
from merit_jax.workdir.artifacts import read_json, whole_checkpoint, write_json, written_checkpoint
from merit_jax.workdir.checksums import file_checksums, fingerprint, verify_checksums, verify_files
from merit_jax.workdir.fences import pass_fence
from merit_jax.workdir.paths import absolute

PARAMS, OPTIMIZER, PROGRESS, SECOND_MOMENT, BEST = "params", "optimizer", "progress", "second_moment", "best"
SUMS = "checksums.json"
"""File next to `checkpoints/`: the step of the newest checkpoint, the sha256 of its files, and the branch's inputs.

It is there, without a step, before the first checkpoint is begun, and each checkpoint is kept until the next one has checksums.
So one without checksums is what a killed process left, and nothing that was not verified is ever trained from or merged.
"""

log = logging.getLogger("merit_jax")


class Progress(NamedTuple):
    """The progress of a branch, stored with its arrays.

    Attributes:
        step: Optimizer steps taken.
        tokens: Supervised tokens trained on, counted exactly.
        data: State of the data iterator, which has advanced past those steps.
        inputs: Fingerprint of everything the branch was made from.
        fingerprint: Of the trained parameters, in the last checkpoint of a branch; else "".
        best: The best evaluation, of early stopping, as JSON values; None without one.
    """

    step: int
    tokens: int
    data: Any
    inputs: str
    fingerprint: str = ""
    best: Mapping[str, Any] | None = None


class Checkpoints:
    """The checkpoints of one branch; only the newest is kept, with the checksums of its files next to it.

    Args:
        directory: `branches/<k>/checkpoints` of a workdir.

    Raises:
        ValueError: There are checkpoints, and no checksums of any of them.
    """

    def __init__(self, directory: epath.PathLike) -> None:
        self.directory, self._checked = absolute(directory), False
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=(PARAMS, OPTIMIZER, PROGRESS, SECOND_MOMENT, BEST),
            options=ocp.CheckpointManagerOptions(max_to_keep=None, create=True, enable_async_checkpointing=False),
        )
        self._remove_unrecorded()

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(
        self,
        state: TrainState,
        progress: Progress,
        *,
        final: bool = False,
        second_moment: Leaves | None = None,
        best: Leaves | None = None,
    ) -> None:
        """Writes the state; a final one is for merging only and leaves the optimizer out.

        Args:
            state: The state.
            progress: Its progress.
            final: Whether it is the last.
            second_moment: Of Adam, for merging by it; kept with the last state.
            best: The leaves of the best evaluation, of early stopping; kept with a state from which training continues.
        """
        items = {
            PARAMS: ocp.args.StandardSave(tree.unflatten(state.leaves)),
            PROGRESS: ocp.args.JsonSave(progress._asdict()),
        }
        if not final:
            items[OPTIMIZER] = ocp.args.StandardSave(state.optimizer)
        for name, leaves in {SECOND_MOMENT: second_moment, BEST: best}.items():
            if leaves is not None:
                items[name] = ocp.args.StandardSave(tree.unflatten(leaves))
        pass_fence(self.directory)
        if not (self.directory.parent / SUMS).exists():
            _write_sums(self.directory, None, progress.inputs, {})
        with written_checkpoint(self.directory):
            self._manager.save(progress.step, args=ocp.args.Composite(**items))
        self._withdraw_if_lost(progress.step)
        if jax.process_index() == 0:
            _write_sums(
                self.directory, progress.step, progress.inputs, file_checksums(self.directory / str(progress.step))
            )
        self._keep_only(progress.step)

    def _withdraw_if_lost(self, step: int) -> None:
        """Removes a checkpoint that was written while another process took the branch, which would resume from it."""
        try:
            pass_fence(self.directory)
        except UnfinishedError:
            if read_sums(self.directory.parent / SUMS, _mend(self.directory))["step"] != step:
                (self.directory / str(step)).rmtree(missing_ok=True)
            raise

    def progress(self) -> Progress:
        """Reads the newest checkpoint's progress, without its arrays.

        Raises:
            ValueError: The checkpoint is not as it was written.
        """
        args = ocp.args.Composite(**{PROGRESS: ocp.args.JsonRestore()})
        self._check()
        with whole_checkpoint(self._newest()):
            return Progress(**self._manager.restore(self.latest(), args=args)[PROGRESS])

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

    def restore_best(self, like: Leaves) -> Leaves:
        """Reads the leaves of the best evaluation, with the shapes, dtypes and shardings of `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, tree.unflatten(like))
        self._check()
        with whole_checkpoint(self._newest()):
            args = ocp.args.Composite(**{BEST: ocp.args.StandardRestore(abstract)})
            leaves: Leaves = tree.flatten(self._manager.restore(self.latest(), args=args)[BEST])
        return leaves

    def _check(self) -> None:
        """Verifies the newest checkpoint once."""
        if not self._checked:
            mend = _mend(self.directory)
            verify_checksums(self._newest(), read_sums(self.directory.parent / SUMS, mend)["files"], mend)
            self._checked = True

    def _remove_unrecorded(self) -> None:
        """Removes what a killed process left: a checkpoint that it did not come to record, or one that it had replaced."""
        steps = self._manager.all_steps()
        if not steps:
            return
        mend = _mend(self.directory)
        recorded = read_sums(self.directory.parent / SUMS, mend)["step"]
        if recorded is not None and recorded not in steps:
            raise ValueError(f"{self.directory} lacks checkpoint {recorded}, of which it has the checksums; {mend}")
        if max(steps) != recorded:
            log.warning(
                "%s: checkpoint %d was not recorded before its process ended, and is removed",
                self.directory,
                max(steps),
            )
        self._keep_only(recorded)

    def _keep_only(self, step: int | None) -> None:
        for other in self._manager.all_steps():
            if other != step:
                self._manager.delete(other)

    def _newest(self) -> epath.Path:
        return self.directory / str(self.latest())

    def close(self) -> None:
        """Waits for writes to end."""
        self._manager.close()


def finished_leaves(checkpoints: epath.PathLike, done: Mapping[str, Any]) -> OrbaxLeaves:
    """Opens the parameters of a finished branch, which may be a copy from elsewhere; each of its files is read once to verify it.

    Args:
        checkpoints: `branches/<k>/checkpoints` of a workdir.
        done: Record of the branch, its `done.json`.

    Raises:
        ValueError: There are no checksums, they or the parameters are of another branch, or a file is not as it was written.
    """
    directory = absolute(checkpoints)
    mend, params = _mend(directory), params_directory(directory)
    step, record = params.parent, read_sums(directory.parent / SUMS, mend)
    if record["step"] != int(step.name):
        raise ValueError(f"{directory.parent / SUMS} has no checksums of checkpoint {step.name}; {mend}")
    if record["inputs"] != fingerprint(done["inputs"]):
        raise ValueError(
            f"{directory.parent / SUMS} is of a branch made from another theta0, data or configuration; copy the whole folder "
            f"of the branch again, or {mend}"
        )
    verify_checksums(step, record["files"], mend)
    with whole_checkpoint(step):
        written = ocp.JsonCheckpointHandler(multiprocessing_options=LOCAL).restore(step / PROGRESS)
    if written["fingerprint"] != done["fingerprint"]:
        raise ValueError(
            f"{step} holds other parameters (fingerprint {written['fingerprint'][:12]}) than {directory.parent / 'done.json'} "
            f"records ({done['fingerprint'][:12]}); copy the whole folder of the branch again, or {mend}"
        )
    return OrbaxLeaves(params)


def finished_second_moment(checkpoints: epath.PathLike, done: Mapping[str, Any]) -> OrbaxLeaves:
    """Opens the second moment of Adam that a finished branch keeps, after verifying the branch as `finished_leaves` does.

    Raises:
        ValueError: It keeps none, or as for `finished_leaves`.
    """
    finished_leaves(checkpoints, done)
    folder = params_directory(checkpoints).parent / SECOND_MOMENT
    if not folder.exists():
        raise ValueError(
            f"{folder} is missing: the branch was trained without train.keep_second_moment; set it to True and "
            f"{_mend(absolute(checkpoints))}"
        )
    return OrbaxLeaves(folder)


def check_present(checkpoints: epath.PathLike) -> None:
    """Checks that the files of a finished branch are there; none is read but their checksums.

    Args:
        checkpoints: `branches/<k>/checkpoints` of a workdir.

    Raises:
        ValueError: A file or the checksums are missing.
    """
    directory = absolute(checkpoints)
    mend = _mend(directory)
    record = read_sums(directory.parent / SUMS, mend)
    verify_files(directory if record["step"] is None else directory / str(record["step"]), record["files"], mend)


def read_sums(path: epath.Path, mend: str) -> Mapping[str, Any]:
    """Reads a record of checksums.

    Args:
        path: The record.
        mend: What to do where there is none, or a damaged one.

    Raises:
        ValueError: It is missing or damaged.
    """
    try:
        record = read_json(path)
        if not isinstance(record, Mapping) or not isinstance(record.get("files"), Mapping):
            raise ValueError("expected checksums by file")
    except ValueError as error:
        reason = str(error).removeprefix(str(path)).partition("; ")[0].strip()
        raise ValueError(f"{path}: without its checksums nothing is read ({reason}); {mend}") from None
    return record


def _mend(directory: epath.Path) -> str:
    branch = directory.parent
    return f"delete {branch} and train the branch again (merit branch --branch={branch.name})"


def _write_sums(directory: epath.Path, step: int | None, inputs: str, files: Mapping[str, str]) -> None:
    if jax.process_index() == 0:
        write_json(directory.parent / SUMS, {"inputs": inputs, "step": step, "files": files})


def params_directory(directory: epath.PathLike) -> epath.Path:
    """Finds the Orbax item with the parameters of the newest complete checkpoint under `directory`.

    Raises:
        ValueError: There is none.
    """
    steps = [step.step for step in ocp.path.step.standard_name_format().find_all(directory)]
    if not steps:
        raise ValueError(f"no finished checkpoint in {directory}; {_mend(absolute(directory))}")
    return epath.Path(directory) / str(max(steps)) / PARAMS
