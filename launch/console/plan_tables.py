"""Prints plans."""

from rich.markup import escape
from rich.table import Table

from merit_jax.launch.console.tables import console
from merit_jax.planning.fit import FitReport
from merit_jax.planning.run_plan import RunPlan
from merit_jax.planning.search import ORDER
from merit_jax.planning.workload import Rate, branch_steps

GIB = 2**30


def print_plan(plan: RunPlan) -> None:
    """Prints a plan."""
    console.print(f"Plan for {plan.topology}: {plan.where}", soft_wrap=True, markup=False)
    console.print(f"Data: {plan.data.source}.", soft_wrap=True, markup=False)
    console.print(_memory(plan))
    console.print(_optimizers(plan))
    for report in filter(None, (plan.configured, plan.nearest)):
        _print_report(report)
    if not plan.configured.fits:
        order = "; ".join(ORDER)
        found = "none found" if plan.nearest is None else f"[bold]{escape(describe(plan.nearest))}[/bold]"
        console.print(f"Nearest execution that fits: {found}. Searched in the order: {order}.", soft_wrap=True)
    console.print(_work(plan))
    console.print(_comparison(plan))


def describe(report: FitReport) -> str:
    """Returns an execution as keys of the command line."""
    s = report.execution
    sequence = f"--config.mesh.sequence={s.sequence} " if s.sequence > 1 else ""
    return (
        f"--config.mesh.data={s.data} --config.mesh.fsdp={s.fsdp} --config.mesh.tensor={s.tensor} {sequence}"
        f"--config.train.batch_size={s.batch_size} --config.train.micro_batches={s.micro_batches} "
        f"--config.model.remat={s.remat}"
    )


def _memory(plan: RunPlan) -> Table:
    """Returns the memory of one device."""
    table = Table("GiB on a device", title="Memory", title_justify="left")
    start = "theta0, best" if plan.configured.resident.best else "theta0"
    columns = ("parameters", "optimizer", start, "batch", "gradients, activations", "in all", "has", "fits", "how")
    for name in columns:
        table.add_column(name, justify="left" if name == "how" else "right")
    reports = {"training, as configured": plan.configured, "training, nearest that fits": plan.nearest}
    for name, report in {**reports, "gradients": plan.calibration}.items():
        if report is None:
            continue
        resident = report.resident
        copies = resident.theta0 + resident.best
        parts = (resident.trainable + resident.frozen, resident.optimizer, copies, resident.batch)
        known = report.step is not None and (report.compiled is None or report.compiled.fits)
        rest = (report.temporaries, report.needed) if known else (None, None)
        sizes = [gib(size) for size in (*parts, *rest, report.capacity)]
        table.add_row(name, *sizes, "yes" if report.fits else "[bold]no[/bold]", _method(report))
    return table


def _optimizers(plan: RunPlan) -> Table:
    """Returns what the state of each optimizer would take, in the execution that fits, if one does."""
    report = plan.nearest or plan.configured
    title = "Optimizers (train.optimizer), GiB on a device for training"
    table = Table("", title=title, title_justify="left")
    for name in ("state", "bytes a parameter", "in all", "fits"):
        table.add_column(name, justify="right")
    for one in plan.optimizers:
        needed = report.needed - report.resident.optimizer + one.state
        fits = report.obstacle is None and needed <= report.capacity
        configured = one is plan.optimizers[0]
        name = f"{one.name}, as configured" if configured else one.name
        table.add_row(
            name, gib(one.state), f"{one.per_parameter:.3g}", gib(needed), "yes" if fits else "[bold]no[/bold]"
        )
    return table


def _method(report: FitReport) -> str:
    if report.obstacle is not None:
        return "not possible"
    if report.compiled is None:
        return "analytic"
    return f"compiled in {report.compiled.seconds:.0f} s"


def _print_report(report: FitReport) -> None:
    """Prints what is not in the table: the reason why it does not fit, or the estimate next to the compiler's figure."""
    if report.obstacle is not None:
        console.print(f"As configured it is not possible: {report.obstacle}.", soft_wrap=True, markup=False)
    elif report.compiled is not None and not report.compiled.fits:
        console.print(
            f"It does not fit, says the compiler: {report.compiled.message:.300}", soft_wrap=True, markup=False
        )
    elif report.compiled is not None and report.step is not None:
        estimate = sum(report.resident) + report.step.peak
        console.print(f"Compiled: {gib(report.needed)} GiB in all; the analytic estimate is {gib(estimate)} GiB.")


def _work(plan: RunPlan) -> Table:
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


def _comparison(plan: RunPlan) -> Table:
    """Returns the costs of joint training and of MERIT on one slice and on K of them."""
    work = {stage.name: stage.flops for stage in plan.stages}
    slices, joint, branch = plan.work.branches, work["joint training"], work["one branch"]
    preparation = work["gradients"] + work.get("curvature", 0)
    merit = preparation + slices * branch
    steps = f"{plan.data.steps:,} and {branch_steps(plan.work, plan.data):,} steps"
    title = f"Joint training against MERIT on K = {slices} slices of {plan.topology} ({steps})"
    table = Table("", title=title, title_justify="left")
    for name in ("time", "chip-hours", "cost ($)", "between slices (GB per step)", "between slices (GB in all)"):
        table.add_column(name, justify="right")
    between = plan.between
    table.add_row("joint, one slice", *_cells(plan.rate, joint, joint), "0", "0")
    spread = _cells(plan.rate, joint, joint / slices)
    table.add_row(f"joint, {slices} slices", *spread, gb(between.joint_step), gb(between.joint))
    apart = _cells(plan.rate, merit, preparation + branch)
    table.add_row(f"MERIT, {slices} slices", *apart, "0", gb(between.merit))
    table.caption = (
        f"In a slice each device sends {gb(plan.within.parameters)} GB of parameters and {gb(plan.within.gradients)} GB of "
        "gradients per step, in either case. Times leave out the wait for traffic."
    )
    return table


def _cells(rate: Rate, flops: float, longest: float) -> tuple[str, str, str]:
    seconds = rate.seconds(flops)
    hours = "unknown" if seconds is None else f"{seconds / 3600 * rate.chips:,.1f}"
    return time(rate.seconds(longest)), hours, dollars(rate, flops)


def gib(size: int | None) -> str:
    """Returns bytes in GiB.

    Examples:
        >>> gib(3 * 2**29)
        '1.5'
    """
    return "" if size is None else f"{size / GIB:.3g}" if size < 10 * GIB else f"{size / GIB:.1f}"


def gb(size: int) -> str:
    """Returns bytes in GB.

    Examples:
        >>> gb(2_500_000_000)
        '2.5'
    """
    return f"{size / 1e9:,.3g}" if size < 1e12 else f"{size / 1e9:,.0f}"


def time(seconds: float | None) -> str:
    """Returns a time in a readable unit.

    Examples:
        >>> time(600), time(10800)
        ('10 min', '3.0 h')
    """
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def dollars(rate: Rate, flops: float) -> str:
    """Returns the price of so much work."""
    price = rate.dollars(flops)
    return "" if price is None else f"{price:,.2f}"
