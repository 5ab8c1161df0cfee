"""Reads every record and image of a mixture: counts, token totals, duplicates, and all that is bad as file:line with the reason.

python -m launch.validate --mixture="examples/bigbench/*.train.jsonl" --tokenizer=HF_DIR_OR_GGUF
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from launch.console import app
from launch.wiring import open_run
from merit_jax.core.progress import bar
from merit_jax.core.types import Dataset, Image, ImageReader, Record
from merit_jax.data.chat_template import encode
from merit_jax.data.duplicates import content_digest, files_mark, first_with_a_mark
from merit_jax.data.flaws import MAX_FLAWED, flaw_sentences, refuse_flawed
from merit_jax.data.manifest import read_manifest
from merit_jax.data.message_texts import images_of
from merit_jax.data.mixture import Limits, read_dataset
from models.pretrained.processor import load_processor

FLAGS = flags.FLAGS

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


class ImageCheck:
    """Opens every image that a record names, once.

    Attributes:
        reader: The model's reader of images; None for a text model, which opens none.
        errors: List to which the errors of bad images are added.
    """

    def __init__(self, reader: ImageReader | None, errors: list[ValueError]):
        self.reader, self.errors = reader, errors
        self._good: dict[str | bytes, bool] = {}

    def __call__(self, record: Record) -> bool:
        """Returns whether all images of the record are good."""
        good = [self._is_good(image, record.where) for image in images_of(record.messages)]
        return all(good)

    def _is_good(self, image: Image, where: str) -> bool:
        key = image["path"] if "path" in image else hashlib.sha256(image["bytes"]).digest()
        if self.reader is not None and key not in self._good:
            try:
                self.reader.check(image)
                self._good[key] = True
            except ValueError as error:
                self.errors.append(ValueError(f"{where}: {error}"))
                self._good[key] = False
        return self._good.get(key, True)


def validate(
    mixture: str,
    tokenizer: Any,
    *,
    include: Sequence[str],
    max_length: int,
    seed: int,
    reader: ImageReader | None = None,
    max_flawed: float = MAX_FLAWED,
) -> tuple[list[Counts], list[ValueError]]:
    """Reads every dataset to its end, and opens every image.

    Args:
        mixture: Manifest or glob.
        tokenizer: A `merit_jax.data.chat_template.Tokenizer`.
        include: Names or patterns of the datasets to read; empty: all.
        max_length: Tokens per example.
        seed: Seed of held-out splits.
        reader: Reads images; None for a text model.
        max_flawed: Share of a dataset's training rows that may have no end of turn, or a text that the template leaves out.

    Returns:
        The datasets, by name, without their bad records; and the errors, each bad image once.
    """
    counts: list[Counts] = []
    errors: list[ValueError] = []
    entries = sorted(read_manifest(mixture, include, errors.append), key=lambda entry: entry.file)
    keep = ImageCheck(reader, errors)
    with bar(len(entries), "reading", "datasets") as progress:
        for entry in entries:
            try:
                found = read_dataset(entry, tokenizer, Limits(max_length), seed=seed, on_error=errors.append, keep=keep)
                counts.append(count(found, tokenizer, max_length))
                refuse_flawed(found.name, found.report, max_flawed)
            except ValueError as error:
                errors.append(error)
            progress.update()
    return sorted(counts), errors


def count(dataset: Dataset, tokenizer: Any, max_length: int) -> Counts:
    """Counts the rows, images and tokens of a dataset, whose held-out records are encoded once more."""
    report = dataset.report
    images = sum(len(example.images) for example in dataset.train)
    sizes = (report.rows, len(dataset.held_out), images, report.tokens, report.total_tokens, report.truncated)
    flaws = (report.unended, report.unseen, tuple(flaw_sentences(dataset.name, report)))
    held_out = [encode(tokenizer, r.messages, max_length, tools=r.tools, where=r.where)[0] for r in dataset.held_out]
    content = content_digest(dataset.train)
    marks = (content, *files_mark(dataset), content_digest([*dataset.train, *held_out]))
    return Counts(dataset.name, *sizes, *flaws, content, marks)


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


def table(counts: Sequence[Counts]) -> Table:
    """Makes a table of the counts per dataset and in all."""
    result = Table(Column("dataset", overflow="fold"), *COLUMNS, show_footer=True)
    for name, *row, _, _, _ in counts:
        result.add_row(escape(name), *(f"{number:,}" for number in row))
    totals = [sum(column) for column in zip(*(row[1:-3] for row in counts), strict=True)] or [0] * len(COLUMNS)
    footers = (f"{len(counts)} datasets", *(f"{total:,}" for total in totals))
    for column, footer in zip(result.columns, footers, strict=True):
        column.footer = footer
        column.justify = "left" if column is result.columns[0] else "right"
    return result


def print_findings(counts: Sequence[Counts], errors: Sequence[ValueError], max_bad: int) -> None:
    """Prints the table, duplicates, then the first errors and their number."""
    console = Console(soft_wrap=True)
    console.print(table(counts))
    for group in duplicates(counts):
        console.print(duplicate_note(group), style="yellow", markup=False, highlight=False)
    told = "\n".join(map(str, errors))
    for sentence in (sentence for each in counts for _, sentence in each.flaws if sentence not in told):
        console.print(sentence, style="yellow", markup=False, highlight=False)
    for error in errors[:max_bad]:
        console.print(str(error), style="red", markup=False, highlight=False)
    if errors:
        shown = f", {max_bad} shown" if len(errors) > max_bad else ""
        console.print(f"{len(errors)} bad records, images or files{shown}")


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "mixture", None, "Manifest (.json, .yaml) or a glob where each file is a dataset.", required=True
    )
    flags.DEFINE_string(
        "tokenizer",
        None,
        "Hugging Face folder (of a vision-language model: with its image settings), .gguf file, or smollm2-135m-instruct.",
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
    flags.DEFINE_integer("max_bad", 50, "Bad records to print; all are counted.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Seed of held-out splits.")


def main(_: Sequence[str]) -> int:
    """Prints the counts and errors; returns 1 if there is an error."""
    processor = load_processor(open_run.resolve(FLAGS.tokenizer))
    counts, errors = validate(
        FLAGS.mixture,
        processor.tokenizer,
        include=FLAGS.include,
        max_length=FLAGS.max_length,
        seed=FLAGS.seed,
        reader=processor.images,
        max_flawed=FLAGS.max_flawed,
    )
    print_findings(counts, errors, FLAGS.max_bad)
    return 1 if errors else 0


if __name__ == "__main__":
    app.start(main, define_flags)
