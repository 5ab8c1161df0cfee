"""Reads the training rows of a branch again, as conversations: exactly those that became its examples."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from merit_jax.core.types import Branch, Record
from merit_jax.data.manifest import Entry, read_manifest
from merit_jax.data.mixture import Limits, read_splits
from merit_jax.data.rows import fail
from merit_jax.data.sampler import share_indices
from merit_jax.launch.emitting.conversations import has_one_response
from merit_jax.launch.emitting.interface import BranchData, DataFile
from merit_jax.pipeline.run import Run


def manifest_entries(run: Run) -> dict[str, Entry]:
    """Returns the entries of the run's datasets by name."""
    cfg = run.config.mixture
    return {entry.name: entry for entry in read_manifest(cfg.path, tuple(cfg.include))}


def branch_data(run: Run, branch: Branch, entries: Mapping[str, Entry]) -> BranchData:
    """Reads the rows of a branch's shares, each in the order of its dataset's files.

    Raises:
        ValueError: A dataset has changed since the run read it.
    """
    counts = dict(zip(run.names, run.samples, strict=True))
    rows: dict[str, list[np.ndarray]] = {}
    for share in branch.shares:
        chosen = share_indices(counts[share.dataset], share, run.config.seed)
        rows.setdefault(share.dataset, []).append(chosen)
    found: dict[str, list[Record]] = {}
    for name, parts in rows.items():
        records = training_records(run, entries[name], counts[name])
        found[name] = [records[index] for index in np.sort(np.concatenate(parts)).tolist()]
    stems = file_stems(list(found))
    files = tuple(DataFile(name, stem, found[name]) for name, stem in zip(found, stems, strict=True) if found[name])
    everything = [record for file in files for record in file.records]
    return BranchData(
        files, any(file.has_images for file in files), all(has_one_response(record) for record in everything)
    )


def training_records(run: Run, entry: Entry, count: int) -> Sequence[Record]:
    """Reads the training records of a dataset, in the order of its examples.

    Args:
        run: The run.
        entry: The dataset's entry in the manifest.
        count: Training examples that the run has of it.

    Raises:
        ValueError: There are not as many.
    """
    cfg, seed = run.config.mixture, run.config.seed
    limits = Limits(cfg.max_length, cfg.max_train, cfg.max_held_out)
    records, _ = read_splits(entry, limits, seed, fail, run.workdir.token_cache)
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
