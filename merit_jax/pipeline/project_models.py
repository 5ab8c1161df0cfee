"""`projection.json`: where branches and merged model went, in the space of the datasets' gradients."""

from collections.abc import Iterable

import numpy as np

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.core.types import LeafReader
from merit_jax.gradients.compression import Compressor, make_compressor
from merit_jax.gradients.store import load_gradients
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import is_current, read_inputs, read_json, write_json
from merit_jax.workdir.checksums import fingerprint


def project_models(run: Run) -> bool:
    """`cos(θ0 − θ, g_t)` of the merged model and of every branch with every dataset: a row like those of C.

    A model that moved down dataset t's gradient alone has that dataset's row. theta0, which has not moved, has zeros. All are
    taken over the entries that the stored gradients keep. A run without similarities, or with branches elsewhere, has none.
    """
    record, found = run.workdir.merge_record, run.workdir
    branches = range(len(read_json(record)["weights"]))
    if not found.conflict.exists() or not all(found.branch_done(k).exists() for k in branches):
        return False
    inputs = {"merge": read_json(record)["inputs"], "conflict": fingerprint(read_inputs(found.conflict))}
    if is_current(found.projection, inputs, overwrite=run.overwrite):
        return False
    trained = [OrbaxLeaves(params_directory(found.branch(k) / "checkpoints")) for k in branches]
    models: dict[str, LeafReader] = {"merged": OrbaxLeaves(found.merged_params)}
    models |= {f"branch {k}": reader for k, reader in enumerate(trained)}
    cfg, paths, gradients = run.config.gradients, trained[0].paths(), load_gradients(run)
    reduce = make_compressor(cfg.reduction, stride=cfg.stride, width=cfg.width)
    cosines = {"theta0": [0.0] * len(gradients)}
    for name, model in models.items():
        cosines[name] = _cosines(_way(run.theta0.leaves(), model, paths, reduce), gradients)
    run.on_first_process(lambda: write_json(found.projection, {"inputs": inputs, "cosines": cosines}))
    return True


def _way(theta0: LeafReader, model: LeafReader, paths: Iterable[str], reduce: Compressor) -> np.ndarray:
    """The kept entries of θ0 − θ."""
    return reduce({path: theta0.read(path).astype(np.float32) - model.read(path) for path in paths})


def _cosines(way: np.ndarray, gradients: Iterable[np.ndarray]) -> list[float]:
    """With each gradient; zeros where there is no way."""
    length = float(np.linalg.norm(way)) or 1.0
    return [float(np.dot(way, row) / (length * np.linalg.norm(row))) for row in gradients]
