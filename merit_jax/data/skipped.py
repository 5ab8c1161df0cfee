"""Rows that cannot be used and are left out on request (`mixture.on_error`): collected, and kept with the token cache."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from etils import epath

from merit_jax.core.errors import raise_if_of_machine
from merit_jax.core.skipped_row import SkippedRow
from merit_jax.core.types import Dataset, ReadReport
from merit_jax.data.rows import OnError, RowError
from merit_jax.workdir.artifacts import write_text

ON_ERROR = ("stop", "skip")
"""Values of `mixture.on_error`: a row that cannot be used is an error, or is left out and listed."""

FILE = "skipped.json"


class SkipRows:
    """An `OnError` that leaves a row out and lists it.

    What loses more than a row is raised: a file that cannot be read to its end, or not as its entry says.

    Attributes:
        rows: The rows that were left out.
    """

    def __init__(self) -> None:
        self.rows: list[SkippedRow] = []

    def __call__(self, error: ValueError) -> None:
        """Lists the row of an error.

        Raises:
            ValueError: It is of no single row.
        """
        if type(error) is not RowError:
            raise error
        self.rows.append(SkippedRow(error.where, error.reason))


def save_skipped(on_error: OnError, folder: epath.Path) -> None:
    """Writes the rows of a dataset that were skipped into its folder of the token cache; nothing where rows are not."""
    if isinstance(on_error, SkipRows):
        write_text(folder / FILE, json.dumps([list(row) for row in on_error.rows]))


def load_skipped(folder: epath.Path) -> tuple[SkippedRow, ...]:
    """Reads what `save_skipped` wrote.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        found = json.loads((folder / FILE).read_text())
        return tuple(SkippedRow(str(where), str(reason), bool(placed)) for where, reason, placed in found)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise_if_of_machine(error, folder / FILE)
        raise ValueError(f"{folder / FILE}: damaged token cache ({error}); delete {folder}") from error


def without_skipped(records: Sequence, rows: Collection[SkippedRow]) -> list:
    """Returns the records that are at no place of a skipped row."""
    places = {row.where for row in rows}
    return [record for record in records if record.where not in places]


def refuse_empty(name: str, count: int, on_error: OnError, held_out: tuple[str, ...] = ()) -> None:
    """Refuses a dataset of which no training row is left.

    Args:
        name: The dataset.
        count: Training rows that can be used.
        on_error: What was called with the errors of the others; only a `SkipRows` has left some out.
        held_out: Files of held-out rows.

    Raises:
        ValueError: None is left; the first that was left out is named.
    """
    if count or not isinstance(on_error, SkipRows):
        return
    if rows := [row for row in on_error.rows if not row.where.startswith(held_out)]:
        raise ValueError(
            f"dataset {name!r}: none of its training rows can be used ({len(rows):,} skipped; first {rows[0].where}: "
            f"{rows[0].reason}); mend them, or leave the dataset out with mixture.include"
        )


def with_unplaced(datasets: Sequence[Dataset], rows: Sequence[SkippedRow]) -> list[Dataset]:
    """Returns datasets with the skipped rows that say no dataset: in the report of the first dataset of their file."""
    found = list(datasets)
    for row in rows:
        own = (i for i, d in enumerate(found) if any(row.where.startswith(file) for file in d.report.files))
        if (first := next(own, None)) is not None:
            report = found[first].report
            skipped = (*report.skipped, row._replace(placed=False))
            found[first] = found[first]._replace(report=report._replace(skipped=skipped))
    return found


def skipped_counts(datasets: Iterable[Dataset]) -> dict[str, int]:
    """Returns how many rows of each dataset were skipped, of those where some were; "": those that say no dataset."""
    rows = [("" if not row.placed else dataset.name) for dataset in datasets for row in dataset.report.skipped]
    return dict(sorted(Counter(rows).items()))


def skip_sentence(name: str, report: ReadReport) -> str:
    """Returns how many rows of a dataset were left out, and the first; empty without any.

    Examples:
        >>> report = ReadReport(("a.jsonl",), "", 8, 0, 0, 0, skipped=(SkippedRow("a.jsonl:3", "not a JSON object"),))
        >>> skip_sentence("a", report)
        "dataset 'a': 1 row skipped, 8 kept to train on; first a.jsonl:3: not a JSON object"
    """
    if not report.skipped:
        return ""
    count, first = len(report.skipped), report.skipped[0]
    return (
        f"dataset {name!r}: {count:,} row{'s' * (count > 1)} skipped, {report.rows:,} kept to train on; first {first.where}: "
        f"{first.reason}"
    )
