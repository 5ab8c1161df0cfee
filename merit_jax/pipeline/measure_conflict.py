"""`conflict.npz`: cosine similarities of the datasets' gradients and their principal axes (MERIT Alg. 1, step 2)."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from merit_jax import conflict
from merit_jax.conflict import StoredRow
from merit_jax.gradients.store import _check, stored_rows
from merit_jax.pipeline.estimate_gradients import gradient_index
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import is_current, read_arrays, read_inputs, write_arrays

log = logging.getLogger("merit_jax")

AXES = 3
"""Principal axes kept at least, if there are so many; the split uses the first log2 K of them."""


def measure_conflict(run: Run) -> bool:
    """Similarities and axes; datasets that are new in the mixture cost only their own rows of the matrix.

    Where the matrix would be too large (`conflict.forms_similarity`), the file has the axes alone.
    """
    index = gradient_index(run)
    inputs = {"gradients": index["inputs"], "datasets": run.digests()}
    path = run.workdir.conflict
    part = _part(path, inputs)
    if part is None and is_current(path, inputs, overwrite=run.overwrite):
        return False
    rows = stored_rows(run)
    rank = min(max(AXES, run.config.partition.groups.bit_length() - 1), len(rows) - 1)
    arrays: dict[str, Any] = {}
    if conflict.forms_similarity(len(rows), len(rows[0]), run.config.conflict.similarity_bytes):
        arrays["similarity"] = _similarity(run, rows) if part is None else _extended(run, rows, part)
        axes = conflict.principal_axes(arrays["similarity"], rank)
    else:
        log.info("C of %d datasets is not formed: %.1f GB of gradients are", len(rows), 4e-9 * len(rows) * len(rows[0]))
        axes = conflict.axes_of_rows(unit_rows(run), rank)
    run.on_first_process(lambda: write_arrays(path, inputs, names=np.array(run.names), **arrays, **axes._asdict()))
    return True


def unit_rows(run: Run) -> np.ndarray:
    """The gradients of the mixture in memory, each divided by its norm.

    Raises:
        ValueError: A row is missing, damaged or without direction.
    """
    rows = stored_rows(run)
    found = conflict.unit_rows(rows, run.names)
    _check(run, rows, found.norms)
    return found.values


def load_conflict(run: Run) -> tuple[np.ndarray | None, np.ndarray]:
    """(similarity f32[T, T] or None where it was too large, scores f32[T, axes]) of the mixture.

    Raises:
        ValueError: The file is missing or is about other datasets.
    """
    arrays = read_arrays(run.workdir.conflict)
    if arrays["names"].tolist() != run.names:
        raise ValueError(f"{run.workdir.conflict} is about other datasets; run --stages=gradients,conflict first")
    return arrays.get("similarity"), arrays["scores"]


def _part(path: epath.Path, inputs: Mapping[str, Any]) -> Mapping[str, np.ndarray] | None:
    """The file, if it holds the similarities of some of these datasets, from the same gradients, and no others."""
    if not path.exists():
        return None
    old = read_inputs(path)
    same = old["gradients"] == json.loads(json.dumps(inputs["gradients"]))
    if not same or not old["datasets"].items() < inputs["datasets"].items():
        return None
    return read_arrays(path)


def _similarity(run: Run, rows: Sequence[StoredRow]) -> np.ndarray:
    found = conflict.cosines(rows, run.names, mesh=_devices(run))
    _check(run, rows, found.norms)
    return found.values


def _extended(run: Run, rows: Sequence[StoredRow], part: Mapping[str, np.ndarray]) -> np.ndarray:
    """The stored matrix with rows and columns for the datasets it does not have (O(Tm) similarities)."""
    if "similarity" not in part:
        return _similarity(run, rows)
    old = part["names"].tolist()
    order = [run.names.index(name) for name in [*old, *(name for name in run.names if name not in old)]]
    found = conflict.cosines(
        [rows[i] for i in order], [run.names[i] for i in order], first=len(old), mesh=_devices(run)
    )
    _check(run, rows, found.norms[np.argsort(order)])
    return conflict.extended(part["similarity"], found)[np.ix_(*[np.argsort(order)] * 2)]


def _devices(run: Run) -> Mesh | None:
    """The devices that multiply; None for the host, whose BLAS is faster than XLA's on a CPU."""
    return run.mesh if run.mesh.size > 1 or jax.default_backend() != "cpu" else None
