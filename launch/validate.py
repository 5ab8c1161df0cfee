"""Reads every record of a mixture: counts, token totals, and every bad record as file:line with the reason.

python -m launch.validate --mixture="examples/bigbench/*.train.jsonl" --tokenizer=HF_DIR_OR_GGUF
"""

from collections.abc import Sequence
from typing import Any

from absl import flags
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from launch import cli, wire
from merit_jax.data.manifest import read_manifest
from merit_jax.data.mixture import Limits, read_dataset
from merit_jax.progress import bar
from merit_jax.types import Dataset
from models.tokenizer import load_tokenizer

FLAGS = flags.FLAGS
flags.DEFINE_string("mixture", None, "Manifest (.json, .yaml) or a glob where each file is a dataset.", required=True)
flags.DEFINE_string("tokenizer", None, "Hugging Face folder, .gguf file, or smollm2-135m-instruct.", required=True)
flags.DEFINE_list("include", [], "Names or patterns of the datasets to read; empty: all.")
flags.DEFINE_integer("max_length", 2048, "Tokens of an example; longer ones are cut and counted.", lower_bound=2)
flags.DEFINE_integer("max_bad", 50, "Bad records to print; all are counted.", lower_bound=0)
flags.DEFINE_integer("seed", 0, "Seed of held-out splits.")

COLUMNS = ("rows", "held out", "supervised", "tokens", "truncated")


def validate(
    mixture: str, tokenizer: Any, *, include: Sequence[str], max_length: int, seed: int
) -> tuple[list[Dataset], list[ValueError]]:
    """Reads every dataset to its end.

    Args:
        mixture: Manifest or glob.
        tokenizer: A `merit_jax.data.chat.Tokenizer`.
        include: Names or patterns of the datasets to read; empty: all.
        max_length: Tokens per example.
        seed: Seed of held-out splits.

    Returns:
        The datasets without their bad records, and the errors of those.
    """
    datasets, errors = [], []
    entries = read_manifest(mixture, include)
    with bar(len(entries), "reading", "datasets") as progress:
        for entry in entries:
            try:
                limits = Limits(max_length)
                datasets.append(read_dataset(entry, tokenizer, limits, seed=seed, on_error=errors.append))
            except ValueError as error:
                errors.append(error)
            progress.update()
    return datasets, errors


def table(datasets: Sequence[Dataset]) -> Table:
    """Lays out training rows, held-out rows, supervised and all training tokens, truncated rows, per dataset and in all."""
    result = Table(Column("dataset", overflow="fold"), *COLUMNS, show_footer=True)
    counts = [(r.rows, len(d.held_out), r.tokens, r.total_tokens, r.truncated) for d in datasets for r in (d.report,)]
    for dataset, row in zip(datasets, counts, strict=True):
        result.add_row(escape(dataset.name), *(f"{count:,}" for count in row))
    totals = [sum(column) for column in zip(*counts, strict=True)] or [0] * len(COLUMNS)
    footers = (f"{len(datasets)} datasets", *(f"{total:,}" for total in totals))
    for column, footer in zip(result.columns, footers, strict=True):
        column.footer = footer
        column.justify = "left" if column is result.columns[0] else "right"
    return result


def main(_: Sequence[str]) -> int:
    """Prints the table and the bad records; 1 if there are any."""
    console = Console(soft_wrap=True)
    tokenizer = load_tokenizer(wire.resolve(FLAGS.tokenizer))
    datasets, errors = validate(
        FLAGS.mixture, tokenizer, include=FLAGS.include, max_length=FLAGS.max_length, seed=FLAGS.seed
    )
    console.print(table(datasets))
    for error in errors[: FLAGS.max_bad]:
        console.print(str(error), style="red", markup=False, highlight=False)
    if errors:
        console.print(
            f"{len(errors)} bad records or files" + (f", {FLAGS.max_bad} shown" if len(errors) > FLAGS.max_bad else "")
        )
    return 1 if errors else 0


if __name__ == "__main__":
    cli.start(main)
