"""Reads the records of a dataset, and splits and samples them: those that are trained on, and those that are held out."""

from typing import NamedTuple

from etils import epath

from merit_jax.core.seeds import fold
from merit_jax.core.types import Record
from merit_jax.data.data_files import listed
from merit_jax.data.manifest import Entry
from merit_jax.data.records import read_entry, sample, split_held_out
from merit_jax.data.rows import OnError
from merit_jax.data.skipped import refuse_empty
from merit_jax.data.weights import kept_examples


class Limits(NamedTuple):
    """Limits on what is read of each dataset.

    Attributes:
        max_length: Tokens per example; the rest is truncated.
        max_train: Training rows, sampled by the seed and the dataset's name; 0 for all.
        max_held_out: The same for held-out rows.
        weight: Share of the training rows that are kept of these, likewise; 1 or more for all.
    """

    max_length: int
    max_train: int = 0
    max_held_out: int = 0
    weight: float = 1.0


def read_splits(
    entry: Entry, limits: Limits, seed: int, on_error: OnError, cache_dir: epath.PathLike | None, *, train: bool = True
) -> tuple[list[Record], list[Record]]:
    """Reads, splits and samples the records of a dataset: those that become its examples, one for each, and its held-out ones.

    Args:
        entry: Its entry in the manifest.
        limits: How much to read.
        seed: The run's seed.
        on_error: Called with the error of every bad record, which is then left out.
        cache_dir: Folder in whose `images/` embedded images are written; None: they stay in memory.
        train: Read the training file; without it, it is read only where a split needs it.

    Returns:
        (training, held out), each in the order of the files.
    """
    records = read_entry(entry, on_error, cache_dir=cache_dir) if train or entry.held_out else []
    if train:
        refuse_empty(entry.name, len(records), on_error)
    apart = entry._replace(files=entry.held_out_files)
    held_out = read_entry(apart, on_error, cache_dir=cache_dir) if entry.held_out_files else []
    if entry.held_out:
        records, held_out = split_held_out(entry, records, seed)
    if entry.num_samples > len(records) > 0:
        raise ValueError(
            f"dataset {entry.name!r}: num_samples is {entry.num_samples}, {listed(entry.files)} has {len(records)} training rows"
        )
    for limit, purpose in ((entry.num_samples, "num_samples"), (limits.max_train, "max_train")):
        records = sample(records, limit, fold(seed, purpose, entry.name))
    if limits.weight < 1:
        kept = kept_examples(entry.name, len(records), limits.weight)
        records = sample(records, kept, fold(seed, "weight", entry.name))
    return records, sample(held_out, limits.max_held_out, fold(seed, "max_held_out", entry.name))
