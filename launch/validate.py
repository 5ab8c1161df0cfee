"""Reads every record and image of a mixture: counts, token totals, duplicates, and all that is bad as file:line with the reason.

merit validate --mixture="examples/bigbench/*.train.jsonl" --tokenizer=HF_DIR_OR_GGUF
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from rich.markup import escape
from rich.table import Column, Table

from merit_jax.core.progress import bar
from merit_jax.core.types import Dataset, ImageReader
from merit_jax.data.chat_template import encode
from merit_jax.data.dataset import read_dataset
from merit_jax.data.duplicates import files_mark, first_with_a_mark, row_digest, rows_digest
from merit_jax.data.flaws import MAX_FLAWED, flaw_sentences, refuse_flawed
from merit_jax.data.manifest import read_manifest, taken_for_lines
from merit_jax.data.record_splits import Limits
from merit_jax.data.shared_rows import shared_rows, short_digests
from merit_jax.launch.console import app
from merit_jax.launch.console.bad_records import BadRecord, bad_record_lines
from merit_jax.launch.console.exit_codes import MISTAKE
from merit_jax.launch.console.image_check import ImageCheck
from merit_jax.launch.console.terminal import Terminal
from merit_jax.launch.wiring.model_path import resolve_settings
from merit_jax.models.pretrained.processor import load_processor

FLAGS = flags.FLAGS

USUALLY_ZERO = ("images", "truncated", "no end", "left out")
"""Columns that are left out where there is nothing to count."""

COLUMNS = ("rows", "held out", "images", "supervised", "tokens", "truncated", "no end", "left out")


class Counts(NamedTuple):
    """Counts of one dataset.

    Attributes:
        name: The dataset.
        rows: Training rows.
        held_out: Held-out rows.
        images: Images of the training rows.
        supervised: Supervised training tokens.
        tokens: Training tokens.
        truncated: Training rows truncated at the maximum length.
        unended: Training rows with a response that ends in no special token.
        unseen: Training rows with a text that the chat template leaves out.
        flaws: (share of the rows, sentence) of both.
        content: Digest of the training examples in any order, equal for duplicates.
        marks: That digest, and those of the files, and of training and held-out examples together: copies of the same data, which
            hold out or draw others of their examples, have one in common.
        animated: Images of several frames or pages, of which the first is read.
        train_rows: Digests of the training rows, for `shared_rows`.
        held_out_rows: The same of the held-out rows.
    """

    name: str
    rows: int
    held_out: int
    images: int
    supervised: int
    tokens: int
    truncated: int
    unended: int
    unseen: int
    flaws: tuple[tuple[float, str], ...]
    content: str
    marks: tuple[str, ...]
    animated: int
    train_rows: np.ndarray
    held_out_rows: np.ndarray


class Findings(NamedTuple):
    """All that `validate` finds.

    Attributes:
        counts: The datasets, by name, without their bad records.
        bad: The errors, each bad image once.
        files: A line per dataset on what its files are taken for.
    """

    counts: list[Counts]
    bad: list[BadRecord]
    files: list[str]


def validate(
    mixture: str,
    tokenizer: Any,
    *,
    include: Sequence[str],
    max_length: int,
    seed: int,
    reader: ImageReader | None = None,
    max_flawed: float = MAX_FLAWED,
) -> Findings:
    """Reads every dataset to its end, and opens every image.

    Args:
        mixture: Manifest or glob.
        tokenizer: A `merit_jax.data.chat_template.Tokenizer`.
        include: Names or patterns of the datasets to read; empty: all.
        max_length: Tokens per example.
        seed: Seed of held-out splits.
        reader: Reads images; None for a text model.
        max_flawed: Share of a dataset's training rows that may have no end of turn, or a text that the template leaves out.
    """
    counts: list[Counts] = []
    bad: list[BadRecord] = []
    entries = read_manifest(mixture, include, lambda error: bad.append(BadRecord("", error)))
    check, limits = ImageCheck(reader), Limits(max_length)
    with bar(len(entries), "reading", "datasets") as progress:
        for entry in sorted(entries, key=lambda entry: entry.files):
            animated: set[str | bytes] = set()

            def on_error(error: ValueError, name: str = entry.name) -> None:
                bad.append(BadRecord(name, error))

            keep = check.of(entry, on_error, animated)
            try:
                found = read_dataset(entry, tokenizer, limits, seed=seed, on_error=on_error, keep=keep)
                counts.append(count(found, tokenizer, max_length, len(animated)))
                refuse_flawed(found.name, found.report, max_flawed)
            except ValueError as error:
                on_error(error)
            progress.update()
    return Findings(sorted(counts, key=lambda each: each.name), bad, taken_for_lines(entries, len(entries)))


def count(dataset: Dataset, tokenizer: Any, max_length: int, animated: int) -> Counts:
    """Counts the rows, images and tokens of a dataset, whose held-out records are encoded once more."""
    report = dataset.report
    images = sum(len(example.images) for example in dataset.train)
    sizes = (report.rows, len(dataset.held_out), images, report.tokens, report.total_tokens, report.truncated)
    flaws = (report.unended, report.unseen, tuple(flaw_sentences(dataset.name, report)))
    held_out = [encode(tokenizer, r.messages, max_length, tools=r.tools, where=r.where)[0] for r in dataset.held_out]
    train_rows, held_out_rows = ([row_digest(row) for row in rows] for rows in (dataset.train, held_out))
    content = rows_digest(train_rows)
    marks = (content, *files_mark(dataset), rows_digest([*train_rows, *held_out_rows]))
    short = (short_digests(train_rows), short_digests(held_out_rows))
    return Counts(dataset.name, *sizes, *flaws, content, marks, animated, *short)


def duplicates(counts: Sequence[Counts]) -> list[tuple[Counts, ...]]:
    """Lists the datasets that have the same training examples, in any order, or are copies of the same data, by groups."""
    present = [each for each in counts if each.rows]
    groups: dict[int, list[Counts]] = {}
    for each, first in zip(present, first_with_a_mark([each.marks for each in present]), strict=True):
        groups.setdefault(first, []).append(each)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def duplicate_note(group: Sequence[Counts]) -> str:
    """Returns the sentence on a group of `duplicates`."""
    names = " and ".join(each.name for each in group)
    if len({each.content for each in group}) == 1:
        said = f"{names} have the same {group[0].rows:,} training examples, which count once for each"
    else:
        said = f"{names} are copies of the same data, each with training examples of its own: one may train on what another tests"
    return f"{said}; leave all but one out unless you mean that"


def shared_notes(counts: Sequence[Counts], most: int) -> list[str]:
    """Returns sentences on held-out rows that are trained on: of each dataset, and the first `most` pairs of others."""
    held_out = {each.name: each.held_out for each in counts}
    pairs = shared_rows({c.name: c.train_rows for c in counts}, {c.name: c.held_out_rows for c in counts})
    own = [pair for pair in pairs if pair.held_out == pair.train]
    notes = [
        f"{pair.held_out}: {pair.rows:,} of its {held_out[pair.held_out]:,} held-out rows are among "
        f"{'its training rows' if pair in own else f'the training rows of {pair.train}'}"
        for pair in pairs[: len(own) + most]
    ]
    left = pairs[len(own) + most :]
    return [*notes, *([f"and {len(left):,} more pairs of datasets share rows"] if left else [])]


def table(counts: Sequence[Counts]) -> Table:
    """Makes a table of the counts per dataset and in all."""
    result = Table(Column("dataset", footer=f"{len(counts)} datasets", overflow="fold"), show_footer=True)
    shown = []
    for place, name in enumerate(COLUMNS, start=1):
        column: list[Any] = [each[place] for each in counts]
        if any(column) or name not in USUALLY_ZERO:
            result.add_column(name, footer=f"{sum(column):,}", justify="right", no_wrap=True)
            shown.append(place)
    for each in counts:
        result.add_row(escape(each.name), *(f"{each[place]:,}" for place in shown))
    return result


def print_findings(found: Findings, max_bad: int) -> None:
    """Prints what files are taken for, the table, warnings, then bad records by dataset and kind, and their number."""
    console = Terminal(soft_wrap=True)

    def say(lines: Iterable[str], style: str | None = None) -> None:
        for line in lines:
            console.print(line, style=style, markup=False, highlight=False)

    say(found.files)
    console.print(table(found.counts))
    say(map(duplicate_note, duplicates(found.counts)), "yellow")
    say(shared_notes(found.counts, max_bad), "yellow")
    animated = [each for each in found.counts if each.animated]
    say(
        (f"{c.name}: {c.animated:,} images have several frames or pages; the first is read" for c in animated), "yellow"
    )
    refused = "\n".join(str(error) for _, error in found.bad)
    say((said for each in found.counts for _, said in each.flaws if said not in refused), "yellow")
    if found.bad:
        say(bad_record_lines(found.bad, max_bad), "red")
        datasets = len({dataset for dataset, _ in found.bad})
        say([f"{len(found.bad):,} bad records, images or files in {datasets:,} dataset{'s' * (datasets > 1)}"])


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "mixture", None, "Manifest (.json, .yaml) or a glob where each file is a dataset.", required=True
    )
    flags.DEFINE_string(
        "tokenizer",
        None,
        "Hugging Face folder or OWNER/NAME of the hub (of a vision-language model: with its image settings), .gguf file, or "
        "smollm2-135m-instruct.",
        required=True,
    )
    flags.DEFINE_list("include", [], "Names or patterns of the datasets to read; empty: all.")
    flags.DEFINE_integer(
        "max_length", 2048, "Tokens of an example; longer ones are truncated and counted.", lower_bound=2
    )
    flags.DEFINE_float(
        "max_flawed",
        MAX_FLAWED,
        "Share of a dataset's rows that may have no end of turn, or a text that the chat template leaves out.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_integer(
        "max_bad", 50, "Kinds of bad records to print, dealt to the datasets in turn; all are counted.", lower_bound=0
    )
    flags.DEFINE_integer("seed", 0, "Seed of held-out splits.")


def main(_: Sequence[str]) -> int:
    """Prints the counts, warnings and errors; returns 1 if there is an error, and 0 with warnings alone."""
    processor = load_processor(resolve_settings(FLAGS.tokenizer, "--tokenizer").path)
    found = validate(
        FLAGS.mixture,
        processor.tokenizer,
        include=FLAGS.include,
        max_length=FLAGS.max_length,
        seed=FLAGS.seed,
        reader=processor.images,
        max_flawed=FLAGS.max_flawed,
    )
    print_findings(found, FLAGS.max_bad)
    return MISTAKE if found.bad else 0


if __name__ == "__main__":
    app.start(main, define_flags)
