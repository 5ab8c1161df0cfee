"""Prints how many attention heads of a model were removed, and how its size and speed have changed."""

from rich.markup import escape
from rich.table import Table

from merit_jax.launch.console.terminal import terminal
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir
from merit_jax.workdir.pruning_files import PruningFiles

console = terminal()

ROWS = (
    ("parameters", "parameters", ",.0f"),
    ("cache_bytes", "key-value cache (bytes per token)", ",.0f"),
    ("read_tokens_per_second", "reading (tokens/s)", ",.1f"),
    ("written_tokens_per_second", "writing (tokens/s)", ",.1f"),
)
"""Key of a model's costs, its label and its form."""


def print_pruning(workdir: Workdir) -> None:
    """Prints the costs of the model before and after, and how the heads are removed."""
    files = PruningFiles(workdir.root)
    chosen = read_json(files.choice)
    console.print(f"{100 * chosen['removed']:.1f} % of the attention heads were removed, by {chosen['criterion']}")
    if not files.costs.exists():
        return
    costs = read_json(files.costs)
    for note in costs["notes"]:
        console.print(note, markup=False)
    table = Table(
        "", "before", "after", "ratio", title=f"Size and speed ({escape(costs['device'])})", title_justify="left"
    )
    for key, label, form in ROWS:
        before, after = costs["before"][key], costs["after"][key]
        table.add_row(label, format(before, form), format(after, form), f"{after / before:.2f}")
    console.print(table)
    console.print(f"written to {costs['folder']}", markup=False)
