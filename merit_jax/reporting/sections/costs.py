"""The cost of the run: seconds per stage, and what rounds send."""

from functools import partial

from merit_jax.reporting.bars import Entry, bars
from merit_jax.reporting.blocks import Missing, Part, Section, Table, Text
from merit_jax.reporting.figures import Figure
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.sections.summary import duration

BASELINE = ("baseline ", "training ")
"""Beginnings of the names of stages that train another method."""


def costs(artifacts: Artifacts) -> Section:
    """Returns the section with the seconds of each stage when it last ran, and of each branch."""
    if not artifacts.times:
        missing = Missing("Seconds per stage", artifacts.run_command())
        return Section("costs", "Cost and time", (missing, *_rounds(artifacts)))
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
    table = Table("Stages", ["stage", "seconds"], rows, folded=True)
    return Section("costs", "Cost and time", (chart, table, *_rounds(artifacts)))


def _rounds(artifacts: Artifacts) -> tuple[Part, ...]:
    """Returns a table of the rounds of the run and a sentence on what they send; nothing for a run without."""
    if not artifacts.merge or "rounds" not in artifacts.merge:
        return ()
    trained, sent = artifacts.merge["rounds"]["trained"], artifacts.merge["rounds"]["bytes"]
    rows = [
        [
            str(entry["round"]) if entry["round"] else "warm start",
            str(len(entry["steps"])),
            f"{sum(entry['steps']):,}",
            f"{sum(entry['tokens']):,}",
        ]
        for entry in trained
    ]
    words = (
        f"In each round a branch sends {_size(sent['up_per_round'])} and gets as much at the start of the next one: "
        f"{_size(sent['up'])} and {_size(sent['down'])} in all. In joint training, each of as many machines sends "
        f"{_size(sent['joint_per_step'])} in every step, {_size(sent['joint'])} in as many steps."
    )
    return Table("Rounds", ["round", "branches", "steps", "supervised tokens"], rows), Text(words)


def _size(count: int) -> str:
    """Returns bytes in the largest unit of which there is one.

    Examples:
        >>> _size(900), _size(108672), _size(2 * 10**9)
        ('900 bytes', '108.7 kB', '2.0 GB')
    """
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:,.1f} {unit}"
    return f"{count} bytes"


def _colour(name: str) -> int | str:
    others = name.startswith(BASELINE) or name in ("evaluate", "frontier")
    return "muted" if others else 0
