"""What the run cost: seconds per stage."""

from merit_jax.reporting.blocks import Missing, Section, Table
from merit_jax.reporting.figures import Axis, Bars, Chart
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.sections.summary import duration

BASELINE = ("baseline ", "training ")
"""What the names of stages begin with that train another method."""


def costs(artifacts: Artifacts) -> Section:
    """Seconds of each stage when it last ran, and of each branch."""
    if not artifacts.times:
        return Section("costs", "Cost and time", (Missing("Seconds per stage", artifacts.run_command()),))
    times = {
        name: seconds for name, seconds in artifacts.times.items() if seconds >= 0.005 * max(artifacts.times.values())
    }
    chart = Chart(
        "times",
        "Seconds per stage",
        Axis("seconds", low=0),
        Axis("", names=tuple(times)),
        (Bars([*times.values()], [duration(s) for s in times.values()], [_colour(name) for name in times]),),
        "Of the stage's last run on this machine; stages under 0.5 % of the longest are left to the table. Grey: other methods "
        "and evaluation.",
        height=90 + 24 * len(times),
    )
    rows = [[name, f"{seconds:,.2f}"] for name, seconds in artifacts.times.items()]
    rows.append(["all", f"{sum(artifacts.times.values()):,.2f}"])
    rows += [[f"diagnostic {name}", f"{seconds:,.2f}"] for name, seconds in artifacts.diagnosed.items()]
    return Section("costs", "Cost and time", (chart, Table("Stages", ["stage", "seconds"], rows, folded=True)))


def _colour(name: str) -> int | str:
    others = name.startswith(BASELINE) or name in ("evaluate", "frontier")
    return "muted" if others else 0
