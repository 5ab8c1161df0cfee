"""Prints the artifacts of a run as tables."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from merit_jax.comparison.statistics import standard_error
from merit_jax.core.types import DatasetSlice
from merit_jax.launch.console.diagnostics_summary import summarise_diagnostics
from merit_jax.launch.console.terminal import terminal
from merit_jax.reporting.frontier import kept_scores
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import THETA0, Workdir
from merit_jax.workdir.pruning_files import WHOLE
from merit_jax.workdir.scores import current_frontier, read_evaluation

console = terminal()


def print_partition(workdir: Workdir) -> None:
    """Prints the datasets of each branch, if the mixture has been partitioned."""
    if not workdir.partition.exists():
        return
    table = Table("branch", "samples", "tokens", "datasets", title="Partition", title_justify="left")
    for index, branch in enumerate(read_json(workdir.partition)["branches"]):
        shares = [DatasetSlice(*share).described for share in branch["shares"]]
        table.add_row(str(index), f"{branch['samples']:,}", f"{branch['tokens']:,}", escape(", ".join(shares)))
    console.print(table)


def print_evaluation(workdir: Workdir) -> None:
    """Prints the scores of every model per dataset and per suite, if they have been evaluated."""
    if not workdir.evaluation.exists():
        return
    content = read_evaluation(workdir)
    models, half = content["models"], content["inputs"]["half"]
    if all("datasets" in model for model in models.values()):
        console.print(_scores(models, "datasets", "Held-out loss (nats/token) and accuracy (%)", _loss_and_accuracy))
    if all("suites" in model for model in models.values()):
        records = "" if half == "all" else f", {half} half"
        console.print(_scores(models, "suites", f"Held-out suites{records}: accuracy (%)", _accuracy))


def _scores(models: dict[str, Any], part: str, title: str, show: Callable[[dict[str, Any]], str]) -> Table:
    """Returns a line per dataset or suite and a column per model, then means, standard errors and `EXTRAS`."""
    table = Table(part.removesuffix("s"), "records", title=title, title_justify="left")
    for name in models:
        table.add_column(escape(name), justify="right")
    for name in next(iter(models.values()))[part]:
        scores = [model[part][name] for model in models.values()]
        table.add_row(escape(name), f"{scores[0]['records']} {scores[0]['metric']}", *map(show, scores))
    table.add_section()
    mean = "mean" if part == "datasets" else "suites_mean"
    table.add_row("mean", "", *(show(model[mean]) for model in models.values()), style="bold")
    errors = [standard_error(list(model[part].values())) for model in models.values()]
    table.add_row("standard error", "", *(f"± {100 * error:.1f}" for error in errors))
    for key, label, scale in EXTRAS if part == "suites" or "suites" not in next(iter(models.values())) else ():
        values = [model.get(key) for model in models.values()]
        if any(value is not None for value in values):
            label = label.format(start=WHOLE if WHOLE in models else THETA0)
            table.add_row(
                label,
                "",
                *("" if value is None else f"{scale * value:.{1 if scale > 1 else 3}f}" for value in values),
            )
    return table


EXTRAS = (
    ("retained", "retained suites", 100),
    ("skill", "skill suites", 100),
    ("mixture_loss", "loss on the mixture (nats/token)", 1),
    ("displacement", "distance from {start}", 1),
)
"""Further lines under the scores: key of a model's entry, label, factor."""


def _loss_and_accuracy(scores: dict[str, Any]) -> str:
    return f"{scores['loss']:.3f} {_accuracy(scores):>5}"


def _accuracy(scores: dict[str, Any]) -> str:
    return f"{100 * scores['accuracy']:.1f}"


def print_frontier(workdir: Workdir) -> None:
    """Prints retained score and skill of every model at every scale of its task vector, if the run has a frontier.

    The last lines are the scores at the scale that is chosen for each model, on the half that does not choose.
    """
    content = current_frontier(workdir)
    if content is None:
        return
    models, share = content["models"], content["inputs"]["frontier"]["retention"]
    title = (
        "Frontier: retained, skill (%) of theta0 + λ · task vector on the reporting half; λ is chosen on the other half"
    )
    table = Table("λ", title=title, title_justify="left")
    points = {name: {point[0]: point[1:] for point in model["points"]} for name, model in models.items()}
    for name in models:
        table.add_column(escape(name), justify="right")
    for scale in sorted({scale for line in points.values() for scale in line}):
        found = [line.get(scale) for line in points.values()]
        table.add_row(
            f"{scale:g}", *("" if one is None else f"{100 * one[0]:.1f} {100 * one[1]:5.1f}" for one in found)
        )
    table.add_section()
    kept = kept_scores(models).values()
    table.add_row(f"skill at {share:.0%}", *map(str, kept), style="bold")
    table.add_row("retained there", *(f"{one.retained:.1f} ({one.share:.0f} %)" for one in kept))
    console.print(table)


def print_diagnostics(workdir: Workdir, impossible: Mapping[str, str]) -> None:
    """Prints the results of the diagnostics, and which are not possible yet."""
    table = Table("diagnostic", "result", title="Diagnostics", title_justify="left", show_lines=True)
    for name, text in summarise_diagnostics(workdir).items():
        table.add_row(name, escape(text))
    for name, reason in impossible.items():
        table.add_row(f"[dim]{name}", f"[dim]not possible yet: {escape(reason)}")
    console.print(table)


def print_times(workdir: Workdir) -> None:
    """Prints the seconds of each stage, and the directory of the artifacts."""
    if workdir.times.exists():
        times = read_json(workdir.times)
        parts = [f"{name} {seconds:.0f} s" for name, seconds in times.items() if seconds >= 1]
        console.print(f"Time: {', '.join(parts)}; {sum(times.values()):.0f} s in all.")
    print_text(f"Artifacts: {workdir.root}")


def print_text(text: str) -> None:
    """Prints text without markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
