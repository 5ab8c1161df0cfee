"""Tells the state of each branch of a run, from its lease and the files of the workdir."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.training.metrics_log import read_metrics
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.lease import LeaseObserver
from merit_jax.workdir.paths import Workdir

FINISHED, TRAINING, STOPPED, WAITING = "finished", "training", "stopped", "waiting"
"""States of a branch."""


class BranchStatus(NamedTuple):
    """State and progress of one branch.

    Attributes:
        branch: Its number.
        state: As `branch_state` gives it.
        step: Optimizer steps in the log.
        steps: Steps in all; None before the first start.
        loss: Mean loss in the log's last line, in nats per token; None before it.
        rate: Supervised tokens per second there.
        host: Machine of the last start; "" before it.
        restarts: Starts after the first.
        seconds: Time left at the rate of the last line; None if unknown, or if the branch is not training.
    """

    branch: int
    state: str
    step: int
    steps: int | None
    loss: float | None
    rate: float | None
    host: str
    restarts: int
    seconds: float | None


def branch_state(workdir: Workdir, branch: int, lease: LeaseObserver) -> str:
    """Returns the state of a branch.

    A branch whose process has died on this machine is `STOPPED` at once, whatever it left behind. On another machine a process
    cannot be checked: such a branch is `TRAINING` as long as its lease changes, and until the lease has been observed unchanged
    for longer than the patience of its `LeaseTiming` (60 seconds). So the observer must be kept between calls.

    Args:
        workdir: The run's.
        branch: Number of the branch.
        lease: An observer of the branch's lease.

    Returns:
        `FINISHED`, `TRAINING` (a live process holds its lease), `STOPPED` (it was started, nobody trains it) or `WAITING`.
    """
    if workdir.branch_done(branch).exists():
        return FINISHED
    if not lease.free():
        return TRAINING
    return STOPPED if lease.holder or workdir.branch_host(branch).exists() else WAITING


def branch_status(workdir: Workdir, branch: int, lease: LeaseObserver) -> BranchStatus:
    """Returns the state of a branch, as `branch_state` does, with its progress, as far as its files can be read now."""
    host: Mapping[str, Any] = {}
    lines: Sequence[Mapping[str, Any]] = ()
    state = branch_state(workdir, branch, lease)
    with contextlib.suppress(
        ValueError, OSError
    ):  # a file that a network folder shows in part, or another program writes
        lines = [line for line in read_metrics(workdir.branch_metrics(branch), tolerant=True) if "loss" in line][-2:]
    with contextlib.suppress(ValueError, OSError):
        host = read_json(workdir.branch_host(branch))
    last, steps = (lines[-1] if lines else {}), host.get("steps")
    return BranchStatus(
        branch,
        state,
        last.get("step", 0),
        steps,
        last.get("loss"),
        last.get("tokens_per_second"),
        host.get("host", ""),
        host.get("starts", 1) - 1,
        seconds_left(lines, steps) if state == TRAINING else None,
    )


def seconds_left(lines: Sequence[Mapping[str, float]], steps: int | None) -> float | None:
    """Returns the time that the remaining steps take at the rate of the last line; None if unknown.

    Args:
        lines: The last one or two lines of `metrics.jsonl`.
        steps: Steps in all.

    Examples:
        >>> seconds_left([{"step": 10, "tokens": 1000, "tokens_per_second": 50.0}], 60)
        100.0
    """
    if not lines or steps is None or not lines[-1]["tokens_per_second"]:
        return None
    last, before = lines[-1], lines[-2]["step"] if len(lines) > 1 else 0
    seconds_per_step = last["tokens"] / last["tokens_per_second"] / max(1, last["step"] - before)
    return (steps - last["step"]) * seconds_per_step
