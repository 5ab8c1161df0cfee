"""`projection.json`: the displacement of branches and merged model, in the space of the datasets' gradients."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from merit_jax.core.leaves import LeafReader
from merit_jax.gradients.compressor import Compressor
from merit_jax.gradients.store import GradientStore, StoredRow
from merit_jax.pipeline.branch_parameters import ADAPTER_SPACE, trainable_leaves
from merit_jax.pipeline.estimate_gradients import compressor
from merit_jax.pipeline.measure_conflict import measure_conflict
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.merge_record import read_merge
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage
from merit_jax.pipeline.train_branches import branch_leaves
from merit_jax.workdir.artifact_types import JsonArtifact
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import MERGED, THETA0


def _applies(run: Run) -> bool:
    """Returns whether the run has similarities in the space of displacements, and branches of its own."""
    branches = range(len(load_partition(run).branches))
    full = run.config.gradients.space != ADAPTER_SPACE
    return full and run.workdir.conflict.exists() and all(run.workdir.branch_done(k).exists() for k in branches)


def _inputs(run: Run) -> dict[str, Any]:
    return {"merge": read_merge(run)["inputs"], "conflict": fingerprint(measure_conflict.recorded(run))}


def _project(run: Run) -> dict[str, Any]:
    """Computes `cos(θ0 − θ, g_t)` of the merged model and of every branch with every dataset: a row like those of C.

    A model that moved down dataset t's gradient alone has that dataset's row. theta0, which has not moved, has zeros. All are
    taken over the entries that the stored gradients keep.
    """
    trained = [trainable_leaves(run, branch_leaves(run, k)) for k in range(len(load_partition(run).branches))]
    models: dict[str, LeafReader] = {MERGED: merged_leaves(run.workdir)}
    models |= {f"branch {k}": reader for k, reader in enumerate(trained)}
    paths, gradients = trained[0].paths(), GradientStore(run.workdir.gradients).rows(run.names)
    cosines = {THETA0: [0.0] * len(gradients)}
    for name, model in models.items():
        cosines[name] = _cosines(_displacement(run.theta0.leaves(), model, paths, compressor(run)), gradients)
    return {"cosines": cosines}


project_models = Stage(
    _inputs, _project, lambda run: JsonArtifact(run.workdir.projection), name="project", applies=_applies
)
"""Places branches and merged model among the datasets."""


def _displacement(theta0: LeafReader, model: LeafReader, paths: Iterable[str], compress: Compressor) -> np.ndarray:
    """Returns the kept entries of θ0 − θ."""
    return compress({path: theta0.read(path).astype(np.float32) - model.read(path) for path in paths})


def _cosines(displacement: np.ndarray, gradients: Sequence[StoredRow]) -> list[float]:
    """Returns the cosine with each gradient; zeros where the model has not moved."""
    length = float(np.linalg.norm(displacement)) or 1.0
    rows = map(np.asarray, gradients)
    return [float(np.dot(displacement, row) / (length * np.linalg.norm(row))) for row in rows]
