"""`conflict.npz`: cosine similarities of the datasets' gradients and their principal axes (MERIT Alg. 1, step 2)."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from merit_jax import conflict
from merit_jax.data.duplicates import content_marks, first_with_a_mark
from merit_jax.gradients.store import GradientStore, StoredRow
from merit_jax.pipeline.calibration import example_digests
from merit_jax.pipeline.estimate_gradients import gradient_inputs, stored_gradients
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import ExtendableStage
from merit_jax.workdir.artifact_types import ArrayArtifact
from merit_jax.workdir.artifacts import read_inputs
from merit_jax.workdir.left_open import settled

log = logging.getLogger("merit_jax")

AXES = 3
"""Principal axes kept at least, for the report, if there are so many; the split uses the first log2 K of them."""

COPIES = (
    "datasets %s are copies of the same data (the same files, or the same training examples). Their gradients, each of examples "
    "of its own, differ a little; leave all but one out unless you mean to count their examples again"
)

SAME_GRADIENT = (
    "datasets %s have the same gradient at theta0 (cosine 1 to 1e-6): they have the same examples, or nearly so. The split "
    "cannot tell them apart and takes them in order of name; leave all but one out unless you mean to count their examples again"
)


def _inputs(run: Run) -> dict[str, Any]:
    return {"gradients": stored_gradients(run)["inputs"], "datasets": example_digests(run)}


def _is_part(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Returns whether similarities are of some of these datasets, from the same gradients, and of no others."""
    return old["gradients"] == new["gradients"] and old["datasets"].items() < new["datasets"].items()


def _measure(run: Run, inputs: Mapping[str, Any], part: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    """Computes similarities and axes; datasets that are new in the mixture cost only their own rows of the matrix.

    Where the matrix would be too large (`conflict.forms_similarity`), the axes are computed without it.
    """
    names = list(inputs["datasets"])
    rows = GradientStore(run.workdir.gradients).rows(names)
    rank = max(1, min(max(AXES, run.config.partition.groups.bit_length() - 1), len(rows) - 1))
    arrays: dict[str, Any] = {"names": np.array(names)}
    if conflict.forms_similarity(len(rows), len(rows[0]), run.config.conflict.similarity_bytes):
        arrays["similarity"] = _similarity(run, rows, part)
        axes = conflict.principal_axes(arrays["similarity"], rank)
        arrays["same_as"] = conflict.duplicates(arrays["similarity"])
    else:
        log.info("C of %d datasets is not formed: %.1f GB of gradients are", len(rows), 4e-9 * len(rows) * len(rows[0]))
        unit = unit_rows(run)
        axes = conflict.axes_of_rows(unit, rank)
        arrays["same_as"] = conflict.duplicates_of_rows(unit)
    alike = conflict.repeated(arrays["same_as"], names)
    marks = [(f"gradient {i}", *marks) for i, marks in zip(arrays["same_as"], content_marks(run.datasets), strict=True)]
    arrays["same_as"] = np.array(first_with_a_mark(marks), np.int32)
    for group in conflict.repeated(arrays["same_as"], names):
        log.warning(SAME_GRADIENT if group in alike else COPIES, " and ".join(group))
    return {**arrays, **axes._asdict()}


measure_conflict = ExtendableStage(
    _inputs, _measure, lambda run: ArrayArtifact(run.workdir.conflict), name="conflict", extends=_is_part
)
"""Measures the similarities of the datasets' gradients and their principal axes."""


def conflict_inputs(run: Run) -> Mapping[str, Any]:
    """Returns what `conflict.npz` is made from: by the config, since a machine that trains a branch has no such file.

    What the config leaves open is as in the file, where it is there.

    Raises:
        ValueError: The file is damaged.
    """
    inputs, path = {"gradients": gradient_inputs(run), "datasets": example_digests(run)}, run.workdir.conflict
    return settled(inputs, read_inputs(path)) if path.exists() else inputs


def load_conflict(run: Run) -> tuple[np.ndarray | None, np.ndarray]:
    """Reads (similarity f32[T, T] or None where it was too large, scores f32[T, axes]) of the mixture.

    Raises:
        ValueError: The file is missing, or was made from other gradients or datasets than the run's.
    """
    arrays = measure_conflict.read(run)
    return arrays.get("similarity"), arrays["scores"]


def unit_rows(run: Run) -> np.ndarray:
    """Reads the gradients of the mixture into memory, each divided by its norm.

    Raises:
        ValueError: A row is missing, damaged or without direction.
    """
    rows = GradientStore(run.workdir.gradients).rows(run.names)
    found = conflict.unit_rows(rows, run.names)
    _check_norms(run, rows, found.norms)
    return found.values


def multiplying_devices(run: Run) -> Mesh | None:
    """Returns the devices that multiply; None for the host, whose BLAS is faster than XLA's on a CPU."""
    return run.mesh if run.mesh.size > 1 or jax.default_backend() != "cpu" else None


def _similarity(run: Run, rows: Sequence[StoredRow], part: Mapping[str, np.ndarray] | None) -> np.ndarray:
    """Returns the stored matrix with rows and columns for the datasets it does not have (O(Tm) similarities)."""
    known = None if part is None else part.get("similarity")
    old = [] if part is None or known is None else part["names"].tolist()
    order = [run.names.index(name) for name in [*old, *(name for name in run.names if name not in old)]]
    back = np.argsort(order)
    names = [run.names[i] for i in order]
    norms = GradientStore(run.workdir.gradients).norms(names)
    found = conflict.cosines(
        [rows[i] for i in order], names, norms=norms, first=len(old), mesh=multiplying_devices(run)
    )
    _check_norms(run, rows, found.norms[back])
    return (found.values if known is None else conflict.extended(known, found))[np.ix_(back, back)]


def _check_norms(run: Run, rows: Sequence[StoredRow], norms: np.ndarray) -> None:
    """Compares the norms of the rows as they were read with those recorded when they were written."""
    store = GradientStore(run.workdir.gradients)
    for i in np.flatnonzero(~np.isclose(norms, store.norms(run.names), rtol=1e-4, atol=0)).tolist():
        raise store.damaged(rows[i], run.names[i])
