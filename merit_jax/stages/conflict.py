"""`conflict.npz`: cosine similarities of the datasets' gradients and their principal axes (MERIT Alg. 1, step 2)."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from merit_jax import conflict
from merit_jax.artifact import is_current, read_arrays, read_inputs, write_arrays
from merit_jax.run import Run
from merit_jax.stages.gradients import gradient_index, load_gradients

AXES = 3
"""Principal axes kept at least, if there are so many; the split uses the first log2 K of them."""


def measure_conflict(run: Run) -> bool:
    """Similarities and axes; datasets that are new in the mixture cost only their own rows of the matrix."""
    index = gradient_index(run)
    inputs = {"gradients": index["inputs"], "datasets": run.digests()}
    path = run.workdir.conflict
    if _covers_part(path, inputs):
        similarity = _extended(run)
    elif is_current(path, inputs, overwrite=run.overwrite):
        return False
    else:
        similarity = np.asarray(conflict.cosine_similarity(np.stack(load_gradients(run)), run.names))
    rank = min(max(AXES, run.config.partition.groups.bit_length() - 1), len(run.names) - 1)
    axes = conflict.principal_axes(similarity, rank)
    run.on_first_process(
        lambda: write_arrays(path, inputs, names=np.array(run.names), similarity=similarity, **axes._asdict())
    )
    return True


def _covers_part(path: epath.Path, inputs: Mapping[str, Any]) -> bool:
    """Whether the file holds the similarities of some of these datasets, from the same gradients, and no others."""
    if not path.exists():
        return False
    old = read_inputs(path)
    return (
        old["gradients"] == json.loads(json.dumps(inputs["gradients"]))
        and old["datasets"].items() < inputs["datasets"].items()
    )


def _extended(run: Run) -> np.ndarray:
    """The stored matrix with rows and columns for the datasets it does not have (O(Tm) similarities)."""
    arrays = read_arrays(run.workdir.conflict)
    old = arrays["names"].tolist()
    new = [name for name in run.names if name not in old]
    rows = dict(zip(run.names, load_gradients(run), strict=True))
    extended = np.asarray(
        conflict.extend_similarity(
            arrays["similarity"], np.stack([rows[name] for name in old]), np.stack([rows[name] for name in new])
        )
    )
    order = [(old + new).index(name) for name in run.names]
    return extended[np.ix_(order, order)]


def load_conflict(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(similarity f32[T, T], scores f32[T, axes]) of the mixture.

    Raises:
        ValueError: The file is missing or is about other datasets.
    """
    arrays = read_arrays(run.workdir.conflict)
    if arrays["names"].tolist() != run.names:
        raise ValueError(f"{run.workdir.conflict} is about other datasets; run --stages=gradients,conflict first")
    return arrays["similarity"], arrays["scores"]
