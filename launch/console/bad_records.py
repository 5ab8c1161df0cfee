"""Sums up what is wrong with a mixture: by dataset and kind, so that no dataset's errors hide another's."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from merit_jax.data.rows import RowError

PLACES = 3
"""Other places of a kind that are named."""
_WORD = re.compile(r"(['\"])[A-Za-z_]{1,32}\1")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_SPECIFIC = re.compile(r"\S*[/\\]\S*|\[.*\]|\{.*\}|\d[\d,.]*", re.DOTALL)


class BadRecord(NamedTuple):
    """An error of a dataset.

    Attributes:
        dataset: Its name; empty for rows that name no dataset.
        error: What is wrong.
    """

    dataset: str
    error: ValueError


def kind_of(error: ValueError) -> str:
    """Returns what is wrong without what is specific to the record, equal for errors of a kind.

    Examples:
        >>> kind_of(ValueError("missing field 'output' (found: ['a b', 'c']); add it"))
        "missing field 'output' (found: _)"
        >>> kind_of(ValueError("target 'a kite' is not among 12 options; mend one"))
        'target _ is not among _ options'
    """
    reason = (error.reason if isinstance(error, RowError) else str(error)).partition("; ")[0]
    named = _QUOTED.sub(lambda found: found[0] if _WORD.fullmatch(found[0]) else "_", reason)
    return _SPECIFIC.sub("_", named)


def bad_record_lines(bad: Sequence[BadRecord], most: int) -> list[str]:
    """Returns lines on bad records: per dataset a count, per kind the first error and the places of the next.

    Args:
        bad: The errors.
        most: Kinds that are shown, dealt to the datasets in turn: one kind of each comes before a second of any.
    """
    datasets: dict[str, dict[str, list[ValueError]]] = {}
    for dataset, error in bad:
        datasets.setdefault(dataset, {}).setdefault(kind_of(error), []).append(error)
    for dataset, kinds in datasets.items():
        datasets[dataset] = dict(sorted(kinds.items(), key=lambda found: -len(found[1])))
    ranked = sorted((rank, name) for name, kinds in datasets.items() for rank in range(len(kinds)))
    shown = [name for _, name in ranked[:most]]
    lines = []
    for name in datasets:
        if number := shown.count(name):
            lines += _dataset_lines(name, list(datasets[name].values()), number)
    if silent := [name for name in datasets if name not in shown]:
        errors = sum(len(found) for name in silent for found in datasets[name].values())
        lines.append(f"{errors:,} bad in {len(silent):,} more datasets, which --max_bad={most} leaves out")
    return lines


def _dataset_lines(name: str, kinds: Sequence[Sequence[ValueError]], number: int) -> list[str]:
    lines = [f"{name or 'rows of no dataset'}: {sum(map(len, kinds)):,} bad"]
    for first, *others in kinds[:number]:
        lines.append(f"  {first}")
        if others:
            lines.append(f"    {len(others):,} more of this kind{_places(others)}")
    if left := kinds[number:]:
        lines.append(f"  {sum(map(len, left)):,} of {len(left):,} other kinds")
    return lines


def _places(errors: Sequence[ValueError]) -> str:
    where = [error.where for error in errors[:PLACES] if isinstance(error, RowError)]
    return f": {', '.join(where)}{', ...' if len(errors) > PLACES else ''}" if where else ""
