"""The cost of the run: seconds per stage."""

from functools import partial

from merit_jax.reporting.bars import Entry, bars
from merit_jax.reporting.blocks import Missing, Section, Table
from merit_jax.reporting.figures import Figure
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.sections.summary import duration

BASELINE = ("baseline ", "training ")
"""Beginnings of the names of stages that train another method."""


def costs(artifacts: Artifacts) -> Section:
    """Returns the section with the seconds of each stage when it last ran, and of each branch."""
    if not artifacts.times:
        return Section("costs", "Cost and time", (Missing("Seconds per stage", artifacts.run_command()),))
    times = {
        name: seconds for name, seconds in artifacts.times.items() if seconds >= 0.005 * max(artifacts.times.values())
    }
    entries = [Entry(name, seconds, duration(seconds), _colour(name)) for name, seconds in times.items()]
    chart = Figure(
        "times",
        "Seconds per stage",
        partial(bars, entries, "seconds", height=90 + 24 * len(times)),
        "Of the stage's last run on this machine; stages under 0.5 % of the longest are left to the table. Grey: other methods "
        "and evaluation.",
    )
    rows = [[name, f"{seconds:,.2f}"] for name, seconds in artifacts.times.items()]
    rows.append(["all", f"{sum(artifacts.times.values()):,.2f}"])
    rows += [[f"diagnostic {name}", f"{seconds:,.2f}"] for name, seconds in artifacts.diagnosed.items()]
    return Section("costs", "Cost and time", (chart, Table("Stages", ["stage", "seconds"], rows, folded=True)))


def _colour(name: str) -> int | str:
    others = name.startswith(BASELINE) or name in ("evaluate", "frontier")
    return "muted" if others else 0
