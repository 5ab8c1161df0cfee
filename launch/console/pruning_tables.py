"""Prints how many attention heads of a model were removed, what that costs and saves, and the curves of all criteria."""

from rich.markup import escape
from rich.table import Table

from merit_jax.launch.console.tables import print_evaluation
from merit_jax.launch.console.terminal import terminal
from merit_jax.reporting.pruning_costs import choice_in_words, cost_rows
from merit_jax.reporting.pruning_curve import LABELS, Quality, curves, qualities, ratios, removed_at
from merit_jax.workdir.paths import Workdir
from merit_jax.workdir.pruning_files import WHOLE
from merit_jax.workdir.pruning_results import PruningResults, Scored, read_pruning

console = terminal()


def print_pruning(workdir: Workdir) -> None:
    """Prints the heads that are removed, scores, costs and curves, as far as they are there; nothing where no heads are chosen.

    Args:
        workdir: Of the pruning, as `pruned` in the workdir of a run.
    """
    found = read_pruning(workdir.root)
    if found is None:
        return
    of_run = "" if found.model else f' "{WHOLE}": the merged model.'
    console.print(choice_in_words(found.chosen) + of_run, markup=False, highlight=False)
    if found.evaluation.models:
        print_evaluation(workdir)
    if found.costs:
        _print_costs(found)
    for quality in qualities(found.curve):
        console.print(_curve_table(found.curve, quality))


def _print_costs(found: PruningResults) -> None:
    costs = found.costs or {}
    for note in costs["notes"]:
        console.print(note, markup=False, highlight=False)
    title = f"Size and speed ({escape(costs['device'])})"
    table = Table("", "before", "after", "ratio", title=title, title_justify="left")
    for row in cost_rows(costs):
        table.add_row(*row)
    console.print(table)


def _curve_table(scored: Scored, quality: Quality) -> Table:
    """Returns a line for each criterion, before and after recovery, and a column for each ratio."""
    found = curves(scored, quality)
    whole = quality.written(quality.of(scored.models[WHOLE]))
    title = f"Heads removed: {quality.label}, mean over {quality.records}; whole {whole}"
    table = Table("criterion", title=title, title_justify="left")
    for ratio in ratios(found):
        table.add_column(removed_at(found, ratio), justify="right")
    for (criterion, recovered), points in found.items():
        at = {point.ratio: point.written(quality) for point in points}
        label = LABELS[criterion] + ", after recovery" * recovered
        table.add_row(label, *(at.get(ratio, "") for ratio in ratios(found)))
    return table
