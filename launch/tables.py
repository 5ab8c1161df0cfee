"""Prints what a run's artifacts say."""

import math
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from merit_jax.workdir import Workdir, read_json

console = Console(width=None if sys.stdout.isatty() else 140)


def print_partition(workdir: Workdir) -> None:
    """Which dataset went where, if the run got that far."""
    if not workdir.partition.exists():
        return
    table = Table("branch", "samples", "tokens", "datasets", title="Partition", title_justify="left")
    for index, branch in enumerate(read_json(workdir.partition)["branches"]):
        shares = [name if parts == 1 else f"{name} {part + 1}/{parts}" for name, part, parts in branch["shares"]]
        table.add_row(str(index), f"{branch['samples']:,}", f"{branch['tokens']:,}", escape(", ".join(shares)))
    console.print(table)


def print_evaluation(workdir: Workdir) -> None:
    """Held-out loss and accuracy of every model per dataset and on the mean, if the run got that far."""
    if not workdir.evaluation.exists():
        return
    models = read_json(workdir.evaluation)["models"]
    table = Table("dataset", "asked", title="Held-out loss (nats/token) and accuracy (%)", title_justify="left")
    for name in models:
        table.add_column(escape(name), justify="right")
    datasets = list(next(iter(models.values()))["datasets"])
    for dataset in datasets:
        scores = [model["datasets"][dataset] for model in models.values()]
        asked = f"{scores[0]['records']} {'options' if scores[0]['metric'] == 'options' else 'exact'}"
        table.add_row(escape(dataset), asked, *(f"{s['loss']:.3f} {100 * s['accuracy']:5.1f}" for s in scores))
    table.add_section()
    means = [model["mean"] for model in models.values()]
    table.add_row("mean", "", *(f"{m['loss']:.3f} {100 * m['accuracy']:5.1f}" for m in means), style="bold")
    errors = [standard_error(list(model["datasets"].values())) for model in models.values()]
    table.add_row("standard error", "", *(f"± {100 * error:.1f}" for error in errors))
    console.print(table)


def standard_error(scores: list[dict]) -> float:
    """Of the mean accuracy over datasets, from the binomial error of each."""
    variances = [s["accuracy"] * (1 - s["accuracy"]) / s["records"] for s in scores]
    return math.sqrt(sum(variances)) / len(variances)


def print_times(workdir: Workdir) -> None:
    """Seconds per stage, and where the artifacts are."""
    if workdir.times.exists():
        times = read_json(workdir.times)
        parts = [f"{name} {seconds:.0f} s" for name, seconds in times.items() if seconds >= 1]
        console.print(f"Time: {', '.join(parts)}; {sum(times.values()):.0f} s in all.")
    console.print(f"Artifacts: {workdir.root}", soft_wrap=True)
