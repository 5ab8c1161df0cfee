"""Reads a mixture: every dataset of a manifest is read, checked, sampled and tokenised."""

import logging
from collections.abc import Collection, Sequence
from typing import Any

from etils import epath

from merit_jax.core.types import Dataset
from merit_jax.data.dataset import read_dataset
from merit_jax.data.flaws import MAX_FLAWED, flaw_sentences, refuse_flawed
from merit_jax.data.group_by import forget
from merit_jax.data.manifest import Entry, read_manifest, taken_for_lines
from merit_jax.data.record_splits import Limits
from merit_jax.data.rows import OnError, fail
from merit_jax.data.skipped import SkipRows, skip_sentence, with_unplaced
from merit_jax.data.weights import dataset_weights, weighted

log = logging.getLogger("merit_jax")

NAMED = 20
"""Datasets whose files a run's log names; the others are counted."""


def load_mixture(
    path: str,
    tokenizer: Any,
    *,
    include: Sequence[str] = (),
    max_length: int,
    max_train: int = 0,
    max_held_out: int = 0,
    max_flawed: float = MAX_FLAWED,
    weights: Sequence[str] = (),
    on_error: str = "stop",
    seed: int,
    cache_dir: epath.PathLike | None = None,
    elsewhere: Collection[str] | None = (),
) -> tuple[Dataset, ...]:
    """Reads the datasets of a mixture.

    Args:
        path: Manifest or glob (see `manifest.read_manifest`); empty where all datasets are elsewhere.
        tokenizer: A `chat_template.Tokenizer`.
        include: Names or fnmatch patterns of the datasets to keep; all if empty.
        max_length: Tokens per example; the rest is truncated.
        max_train: Training rows per dataset, sampled by `seed` and the dataset's name; 0 for all.
        max_held_out: The same for held-out rows.
        max_flawed: Share of a dataset's training rows that may have a flaw of `flaws.flaw_sentences`; some are logged.
        weights: Rules as `weights.dataset_weights` has them.
        on_error: "stop" at a row that cannot be used, or "skip" it: it is listed in `ReadReport.skipped`.
        seed: The run's seed.
        cache_dir: Folder that keeps tokenised datasets between runs, and images that dataset files embed; None for none.
        elsewhere: Names of datasets that a manifest may name although none of their files is here; they are left out. None: there
            are others elsewhere, whose names are unknown.

    Returns:
        The datasets, sorted by name.

    Raises:
        ValueError: The manifest, a rule or a record is bad, or a dataset has too many flawed rows, or none that can be used.
    """
    limits = Limits(max_length, max_train, max_held_out)
    skip, unplaced = on_error == "skip", SkipRows()
    entries = _entries(path, include, unplaced if skip else fail, elsewhere or ())
    found = dataset_weights(sorted(entry.name for entry in entries), weights, elsewhere)
    datasets = []
    try:
        for entry in entries:
            own = limits._replace(weight=min(1.0, found.get(entry.name, 1.0)))
            handle = SkipRows() if skip else fail
            datasets.append(read_dataset(entry, tokenizer, own, seed=seed, cache_dir=cache_dir, on_error=handle))
    finally:
        if any(entry.group_by for entry in entries):
            forget()
    for dataset in datasets:
        _warn(dataset, max_flawed)
    placed = sorted(with_unplaced(datasets, unplaced.rows), key=lambda dataset: dataset.name)
    return tuple(weighted(dataset, found.get(dataset.name, 1.0), seed) for dataset in placed)


def _entries(path: str, include: Sequence[str], on_error: OnError, elsewhere: Collection[str]) -> list[Entry]:
    """Lists the datasets that are here, in the order of their files, and logs what the files are taken for."""
    listed = read_manifest(path, include, on_error) if path or not elsewhere else ()
    entries = sorted((e for e in listed if e.name not in elsewhere or _is_here(e)), key=lambda e: e.files)
    for line in taken_for_lines(sorted(entries), NAMED):
        log.info("%s", line)
    return entries


def _warn(dataset: Dataset, max_flawed: float) -> None:
    """Logs the flaws of a dataset's rows, and how many were skipped.

    Raises:
        ValueError: Too many rows have a flaw.
    """
    name, report = dataset.name, dataset.report
    refuse_flawed(name, report, max_flawed)
    said = [*(sentence for _, sentence in flaw_sentences(name, report)), skip_sentence(name, report)]
    for sentence in filter(None, said):
        log.warning("%s", sentence)


def _is_here(entry: Entry) -> bool:
    """Returns whether any file of a dataset is on this machine; one that lacks some is an error of whoever reads it."""
    return any(epath.Path(file).exists() for file in entry.files)
