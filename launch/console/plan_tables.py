"""Prints a plan."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from launch.console.tables import console
from merit_jax.planning.fit import FitReport
from merit_jax.planning.search import ORDER
from merit_jax.planning.workload import Rate, branch_steps

GIB = 2**30


def print_plan(plan: Any) -> None:
    """Everything of a `launch.plan.Result`."""
    console.print(f"Plan for {plan.topology}: {plan.where}", soft_wrap=True, markup=False)
    console.print(f"Data: {plan.data.source}.", soft_wrap=True, markup=False)
    console.print(_memory(plan))
    for verdict in filter(None, (plan.asked, plan.nearest)):
        _print_verdict(verdict)
    if not plan.asked.fits:
        order = "; ".join(ORDER)
        found = "none found" if plan.nearest is None else f"[bold]{escape(describe(plan.nearest))}[/bold]"
        console.print(f"Nearest setting that fits: {found}. Searched in the order: {order}.", soft_wrap=True)
    console.print(_work(plan))
    console.print(_comparison(plan))


def describe(verdict: FitReport) -> str:
    """A setting as keys of the command line."""
    s = verdict.setting
    return (
        f"--config.mesh.data={s.data} --config.mesh.fsdp={s.fsdp} --config.mesh.tensor={s.tensor} "
        f"--config.train.batch_size={s.batch_size} --config.train.micro_batches={s.micro_batches} "
        f"--config.model.remat={s.remat}"
    )


def _memory(plan: Any) -> Table:
    """What one device needs."""
    table = Table("GiB on a device", title="Memory", title_justify="left")
    columns = ("parameters", "optimizer", "theta0", "batch", "gradients, activations", "in all", "has", "fits", "how")
    for name in columns:
        table.add_column(name, justify="left" if name == "how" else "right")
    verdicts = {"training, as configured": plan.asked, "training, nearest that fits": plan.nearest}
    for name, verdict in {**verdicts, "gradients": plan.calibration}.items():
        if verdict is None:
            continue
        held = verdict.held
        parts = (held.trainable + held.frozen, held.optimizer, held.theta0, held.batch)
        known = verdict.passing is not None and (verdict.compiled is None or verdict.compiled.fits)
        rest = (verdict.temporaries, verdict.needed) if known else (None, None)
        sizes = [gib(size) for size in (*parts, *rest, verdict.capacity)]
        table.add_row(name, *sizes, "yes" if verdict.fits else "[bold]no[/bold]", _how(verdict))
    return table


def _how(verdict: FitReport) -> str:
    if verdict.obstacle is not None:
        return "not laid out"
    if verdict.compiled is None:
        return "analytic"
    return f"compiled in {verdict.compiled.seconds:.0f} s"


def _print_verdict(verdict: FitReport) -> None:
    """What is not in the table: why it does not fit, and the estimate beside the compiler's figure."""
    if verdict.obstacle is not None:
        console.print(f"As configured it cannot be laid out: {verdict.obstacle}.", soft_wrap=True, markup=False)
    elif verdict.compiled is not None and not verdict.compiled.fits:
        console.print(f"The compiler found no room: {verdict.compiled.message:.300}", soft_wrap=True, markup=False)
    elif verdict.compiled is not None and verdict.passing is not None:
        estimate = sum(verdict.held) + verdict.passing.peak
        console.print(f"Compiled: {gib(verdict.needed)} GiB in all; the analytic estimate is {gib(estimate)} GiB.")


def _work(plan: Any) -> Table:
    title = (
        f"Work of the stages on one slice, at {plan.rate.utilisation:.0%} of the peak (FLOPs from shapes, not from XLA)"
    )
    table = Table("stage", title=title, title_justify="left")
    for name in ("tokens", "FLOPs", "storage (GB)", "time", "cost ($)"):
        table.add_column(name, justify="right")
    for stage in plan.stages:
        flops = stage.flops
        tokens = f"{stage.tokens:,}" if stage.tokens else ""
        storage = f"{stage.storage / 1e9:,.1f}" if stage.storage else ""
        table.add_row(
            stage.name, tokens, f"{flops:.2e}", storage, time(plan.rate.seconds(flops)), dollars(plan.rate, flops)
        )
    return table


def _comparison(plan: Any) -> Table:
    """Joint training and MERIT on one slice and on K of them."""
    work = {stage.name: stage.flops for stage in plan.stages}
    slices, joint, branch = plan.job.branches, work["joint training"], work["one branch"]
    merit = work["gradients"] + slices * branch
    steps = f"{plan.data.steps:,} and {branch_steps(plan.job, plan.data):,} steps"
    title = f"Joint training against MERIT on K = {slices} slices of {plan.topology} ({steps})"
    table = Table("", title=title, title_justify="left")
    for name in ("time", "chip-hours", "cost ($)", "between slices (GB per step)", "between slices (GB in all)"):
        table.add_column(name, justify="right")
    between = plan.between
    table.add_row("joint, one slice", *_cells(plan.rate, joint, joint), "0", "0")
    spread = _cells(plan.rate, joint, joint / slices)
    table.add_row(f"joint, {slices} slices", *spread, gb(between.joint_step), gb(between.joint))
    apart = _cells(plan.rate, merit, work["gradients"] + branch)
    table.add_row(f"MERIT, {slices} slices", *apart, "0", gb(between.merit))
    table.caption = (
        f"In a slice each device sends {gb(plan.within.parameters)} GB of parameters and {gb(plan.within.gradients)} GB of "
        "gradients per step, in either case. Time leaves out what waiting for traffic costs."
    )
    return table


def _cells(rate: Rate, flops: float, longest: float) -> tuple[str, str, str]:
    seconds = rate.seconds(flops)
    hours = "unknown" if seconds is None else f"{seconds / 3600 * rate.chips:,.1f}"
    return time(rate.seconds(longest)), hours, dollars(rate, flops)


def gib(size: int | None) -> str:
    """Bytes in GiB."""
    return "" if size is None else f"{size / GIB:.3g}" if size < 10 * GIB else f"{size / GIB:.1f}"


def gb(size: int) -> str:
    """Bytes in GB."""
    return f"{size / 1e9:,.3g}" if size < 1e12 else f"{size / 1e9:,.0f}"


def time(seconds: float | None) -> str:
    """A time as one reads it."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def dollars(rate: Rate, flops: float) -> str:
    """The price of so much work."""
    price = rate.dollars(flops)
    return "" if price is None else f"{price:,.2f}"
