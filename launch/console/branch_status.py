"""Where each branch of a run stands, from the files of its workdir alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from merit_jax.training.metrics_log import read_metrics
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir


class BranchStatus(NamedTuple):
    """A branch.

    Attributes:
        branch: Its number.
        state: "finished", "training" (in some process's hands), "stopped" (was begun) or "waiting".
        step: Optimizer steps of which the log tells.
        steps: Steps in all; None before the first start.
        loss: Mean loss of the log's last line, in nats per token; None before it.
        rate: Supervised tokens per second there.
        host: Machine of the last start; "" before it.
        restarts: Starts after the first.
        seconds: Left at the pace of the last line; None if it cannot be told.
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


def branch_status(workdir: Workdir, branch: int) -> BranchStatus:
    """A branch, as its files tell.

    Raises:
        ValueError: One of them is damaged.
    """
    home = workdir.branch_host(branch)
    host: Mapping[str, Any] = read_json(home) if home.exists() else {}
    lines = read_metrics(workdir.branch_metrics(branch))[-2:]
    last, steps = (lines[-1] if lines else {}), host.get("steps")
    state = "stopped" if host else "waiting"
    if workdir.branch_done(branch).exists():
        state = "finished"
    elif workdir.branch_lease(branch).exists():
        state = "training"
    return BranchStatus(
        branch,
        state,
        last.get("step", 0),
        steps,
        last.get("loss"),
        last.get("tokens_per_second"),
        host.get("host", ""),
        host.get("starts", 1) - 1,
        seconds_left(lines, steps) if state == "training" else None,
    )


def seconds_left(lines: Sequence[Mapping[str, float]], steps: int | None) -> float | None:
    """Time that the steps still to come take, at the pace of the last line.

    Args:
        lines: The last one or two lines of `metrics.jsonl`.
        steps: Steps in all.
    """
    if not lines or steps is None or not lines[-1]["tokens_per_second"]:
        return None
    last, before = lines[-1], lines[-2]["step"] if len(lines) > 1 else 0
    pace = last["tokens"] / last["tokens_per_second"] / max(1, last["step"] - before)
    return (steps - last["step"]) * pace


def table(standings: Sequence[BranchStatus], failed: Mapping[int, str]) -> Table:
    """A line for each branch.

    Args:
        standings: The branches.
        failed: Branch -> why it is not started any more.
    """
    made = Table(title="Branches", title_justify="left")
    for name in ("branch", "state", "step", "loss", "tokens/s", "host", "restarts", "time left"):
        made.add_column(name, justify="left" if name in ("state", "host") else "right")
    for each in standings:
        made.add_row(
            str(each.branch),
            "[red]failed" if each.branch in failed else each.state,
            f"{each.step}" if each.steps is None else f"{each.step}/{each.steps}",
            "" if each.loss is None else f"{each.loss:.3f}",
            "" if each.rate is None else f"{each.rate:,.0f}",
            escape(each.host),
            str(each.restarts),
            "" if each.seconds is None else duration(each.seconds),
        )
    return made


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
