"""Datasets whose rows are on other machines: what is known of them here is what a record says.

A record is a JSON file with `inputs.datasets` (name -> digest) and `datasets` (name -> counts, and perhaps site and marks).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from merit_jax.core.types import Dataset, Example, ReadReport
from merit_jax.data.weights import examples_digest

WEIGHT = "weight"
"""Key of a dataset in a record of its weight, where that is not 1."""

FIELDS = {
    "samples": "rows",
    **{name: name for name in ("tokens", "total_tokens", "truncated", "unended", "unseen")},
}
"""Key of a dataset in a record -> field of `ReadReport`."""


ELSEWHERE = "elsewhere"
"""Key, among the inputs of an artifact, of the names of datasets whose rows are not here, where there are any."""


class RowsElsewhere:
    """The training rows of a dataset that is elsewhere: a sequence that can be counted, and refuses to give a row.

    Attributes:
        name: Name of the dataset.
        site: Name of the site that has it; "" where the record does not say.
        marks: Marks of its content, for `duplicates.content_marks`.
    """

    def __init__(self, name: str, count: int, site: str = "", marks: Sequence[str] = ()) -> None:
        self.name, self.site, self.marks, self._count = name, site, tuple(marks), count

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._count

    def __iter__(self) -> Iterator[Example]:
        """Refuses, as indexing does.

        Raises:
            ValueError: Always.
        """
        where = f"they are at site {self.site!r}" if self.site else "they are elsewhere"
        raise ValueError(
            f"dataset {self.name!r}: its rows are needed here, and {where}; run this where they are, or put its files under "
            "mixture.path"
        )

    def __getitem__(self, index: Any) -> Any:
        """Refuses.

        Raises:
            ValueError: Always.
        """
        return iter(self)


def is_elsewhere(dataset: Dataset) -> bool:
    """Returns whether the rows of a dataset are on another machine."""
    return isinstance(dataset.train, RowsElsewhere)


def elsewhere_inputs(datasets: Iterable[Dataset]) -> dict[str, list[str]]:
    """Returns what an artifact records, beside the datasets, that is made from the rows that are here."""
    away = [dataset.name for dataset in datasets if is_elsewhere(dataset)]
    return {ELSEWHERE: away} if away else {}


def describe(dataset: Dataset) -> dict[str, int | float]:
    """Returns what a record says of a dataset: counts of rows and tokens, and a weight, as JSON values."""
    weight = {WEIGHT: dataset.weight} if dataset.weight != 1 else {}
    return {key: getattr(dataset.report, field) for key, field in FIELDS.items()} | weight


def datasets_elsewhere(record: Mapping[str, Any], where: str) -> dict[str, Dataset]:
    """Returns the datasets of a record, by name.

    Args:
        record: The record.
        where: Its file, for error messages.

    Raises:
        ValueError: The record does not say what is needed of a dataset.
    """
    digests, known = record["inputs"]["datasets"], record.get("datasets", {})
    if missing := [name for name in digests if not FIELDS.keys() <= known.get(name, {}).keys()]:
        raise ValueError(
            f"{where} does not count the rows and tokens of dataset {missing[0]!r}, as files of an earlier version do not; make "
            "it again where the data is"
        )
    return {name: _dataset(name, digest, known[name]) for name, digest in digests.items()}


def _dataset(name: str, digest: str, entry: Mapping[str, Any]) -> Dataset:
    fields = {field: entry[key] for key, field in FIELDS.items()}
    rows = RowsElsewhere(name, entry["samples"], entry.get("site", ""), entry.get("marks", ()))
    report = ReadReport(files=(), digest=examples_digest(digest), **fields)
    return Dataset(name, cast(Sequence[Example], rows), (), report, entry.get(WEIGHT, 1.0))
