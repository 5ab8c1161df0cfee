"""Reads the stored gradients of a run and checks them against their checksums."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from merit_jax.conflict import StoredRow
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import read_array, read_json
from merit_jax.workdir.checksums import sha256_array


def load_gradients(run: Run) -> list[np.ndarray]:
    """Memory-mapped gradient rows of the mixture, in order.

    Raises:
        ValueError: A row is missing or damaged.
    """
    entries = read_json(run.workdir.gradient_index)["datasets"]
    return [_load(run, name, entries.get(name)) for name in run.names]


def gradient_norms(run: Run) -> list[float]:
    """‖g_t‖ of each dataset of the mixture, over the entries that are kept.

    Raises:
        ValueError: A gradient is missing.
    """
    entries = read_json(run.workdir.gradient_index)["datasets"]
    missing = [name for name in run.names if name not in entries]
    if missing:
        raise ValueError(f"no gradients of {missing} in {run.workdir.gradients}; run --stages=gradients first")
    return [entries[name]["norm"] for name in run.names]


def _load(run: Run, name: str, entry: Mapping[str, Any] | None) -> np.ndarray:
    if entry is None:
        raise ValueError(f"no gradient of dataset {name!r} in {run.workdir.gradients}; run --stages=gradients first")
    path = run.workdir.gradients / entry["file"]
    try:
        row = read_array(path)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} (dataset {name!r}) is missing or damaged: {error}; delete {path.parent}") from None
    if row.shape != (entry["entries"],) or entry.get("sha256", "") not in ("", sha256_array(row)):
        raise ValueError(f"{path} (dataset {name!r}) does not hold the gradient that was written; delete {path.parent}")
    return row


def stored_rows(run: Run) -> list[StoredRow]:
    """The gradients of the mixture, in order, to be read a slice at a time.

    Raises:
        ValueError: A row is missing or damaged.
    """
    entries = read_json(run.workdir.gradient_index)["datasets"]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda name: _row(run, name, entries.get(name)), run.names))


def _row(run: Run, name: str, entry: Mapping[str, Any] | None) -> StoredRow:
    if entry is None:
        raise ValueError(f"no gradient of dataset {name!r} in {run.workdir.gradients}; run --stages=gradients first")
    path = run.workdir.gradients / entry["file"]
    try:
        row = StoredRow(path)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} (dataset {name!r}) is missing or damaged: {error}; delete {path.parent}") from None
    if len(row) != entry["entries"] or entry.get("sha256", "") not in ("", sha256_array(row)):
        raise _other(row, name)
    return row


def _check(run: Run, rows: Sequence[StoredRow], norms: np.ndarray) -> None:
    """Holds the norms of what was read against those of what was written."""
    for i in np.flatnonzero(~np.isclose(norms, gradient_norms(run), rtol=1e-4, atol=0)).tolist():
        raise _other(rows[i], run.names[i])


def _other(row: StoredRow, name: str) -> ValueError:
    return ValueError(
        f"{row.path} (dataset {name!r}) does not hold the gradient that was written; delete {row.path.parent}"
    )
