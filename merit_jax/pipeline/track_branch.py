"""Shows the training of a branch in the trackers of `train.trackers`."""

import contextlib
import uuid
from collections.abc import Iterator

import jax

from merit_jax.pipeline.run import Run
from merit_jax.training.trackers import TRACKERS, TrackedRun, check_trackers
from merit_jax.training.trackers.sender import Senders
from merit_jax.workdir.artifacts import plain, read_json, write_json


@contextlib.contextmanager
def tracked(run: Run, index: int) -> Iterator[Senders | None]:
    """Opens the trackers of a branch while the block runs; yields what takes its log, None without trackers.

    Only process 0 writes. The block's end by an error, or by preemption, leaves the curves to be resumed.

    Raises:
        ValueError: A tracker is not installed.
    """
    names = tuple(run.config.train.trackers)
    check_trackers(names)
    if not names or jax.process_index():
        yield None
        return
    senders, finished = Senders({name: TRACKERS[name] for name in names}, tracked_run(run, index)), False
    try:
        yield senders
        finished = True
    finally:
        senders.close(finished=finished)


def tracked_run(run: Run, index: int) -> TrackedRun:
    """Returns what trackers are told of a branch; its id is made once, and goes with its folder."""
    path = run.workdir.branch_tracking(index)
    if not path.exists():
        write_json(path, {"id": uuid.uuid4().hex})
    root, shared = run.workdir.root, run.workdir.shared
    parts = root.relative_to(shared).parts if root.is_relative_to(shared) else (root.name,)
    return TrackedRun(
        project=run.config.train.project or shared.name,
        group="/".join((shared.name, *parts)) if root.is_relative_to(shared) else root.name,
        name=f"branch-{index}",
        id=read_json(path)["id"],
        directory=root,
        config=plain(run.config.to_dict()),
    )
