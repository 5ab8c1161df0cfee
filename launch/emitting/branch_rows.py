"""Reads the training rows of a branch again, as conversations: exactly those that became its examples."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from merit_jax.core.types import Branch, Dataset, Record
from merit_jax.data.manifest import Entry, read_manifest
from merit_jax.data.record_splits import Limits, read_splits
from merit_jax.data.rows import OnError, fail
from merit_jax.data.sampler import share_examples
from merit_jax.data.skipped import SkipRows, without_skipped
from merit_jax.launch.emitting.conversations import has_one_response
from merit_jax.launch.emitting.interface import BranchData, DataFile
from merit_jax.pipeline.run import Run


def manifest_entries(run: Run) -> dict[str, Entry]:
    """Returns the entries of the run's datasets by name."""
    cfg = run.config.mixture
    return {entry.name: entry for entry in read_manifest(cfg.path, tuple(cfg.include), _on_error(run))}


def _on_error(run: Run) -> OnError:
    return SkipRows() if run.config.mixture.on_error == "skip" else fail


def branch_data(run: Run, branch: Branch, entries: Mapping[str, Entry]) -> BranchData:
    """Reads the rows of a branch's shares, each in the order of its dataset's files, and as often as an epoch visits it.

    Raises:
        ValueError: A dataset has changed since the run read it.
    """
    datasets = {dataset.name: dataset for dataset in run.datasets}
    rows: dict[str, list[np.ndarray]] = {}
    for share in branch.shares:
        chosen = share_examples(datasets[share.dataset], share, run.config.seed)
        rows.setdefault(share.dataset, []).append(chosen)
    found: dict[str, list[Record]] = {}
    for name, parts in rows.items():
        records = training_records(run, entries[name], datasets[name])
        found[name] = [records[index] for index in np.sort(np.concatenate(parts)).tolist()]
    stems = file_stems(list(found))
    files = tuple(DataFile(name, stem, found[name]) for name, stem in zip(found, stems, strict=True) if found[name])
    everything = [record for file in files for record in file.records]
    return BranchData(
        files, any(file.has_images for file in files), all(has_one_response(record) for record in everything)
    )


def training_records(run: Run, entry: Entry, dataset: Dataset) -> Sequence[Record]:
    """Reads the training records of a dataset, in the order of its examples.

    Args:
        run: The run.
        entry: The dataset's entry in the manifest.
        dataset: The dataset as the run has read it.

    Raises:
        ValueError: There are not as many.
    """
    cfg, seed, count = run.config.mixture, run.config.seed, len(dataset.train)
    limits = Limits(cfg.max_length, cfg.max_train, cfg.max_held_out, min(dataset.weight, 1.0))
    found, _ = read_splits(entry, limits, seed, _on_error(run), run.workdir.token_cache)
    records = without_skipped(found, dataset.report.skipped)
    if len(records) != count:
        raise ValueError(
            f"dataset {entry.name!r} has {len(records)} training rows, and had {count} when the run read it; start again"
        )
    return records


def file_stems(names: Sequence[str]) -> list[str]:
    """Returns a name for the file of each dataset that any tool and file system takes, each another one.

    Examples:
        >>> file_stems(["qa", "a/b, c", "a b c"])
        ['qa', 'a_b_c', 'a_b_c-2']
    """
    stems: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-") or "dataset"
        stem, number = plain, 1
        while stem.lower() in {other.lower() for other in stems}:
            number += 1
            stem = f"{plain}-{number}"
        stems.append(stem)
    return stems
