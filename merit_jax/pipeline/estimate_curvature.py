"""`curvature/`: the Gauss-Newton matrix of the mixture times each dataset's gradient, for `conflict.similarity=curvature`."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from merit_jax import conflict
from merit_jax.core import tree
from merit_jax.core.progress import bar
from merit_jax.core.types import Batch, Leaves
from merit_jax.data.bucketing import calibration_examples
from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.hessian import Objective
from merit_jax.gradients.curvature import GaussNewton, gauss_newton_product
from merit_jax.gradients.store import GradientStore, NewRow, StoredRow
from merit_jax.partition import uses_gradients
from merit_jax.pipeline.calibration import batches_of, calibration_batches, example_digests
from merit_jax.pipeline.estimate_gradients import compressor, estimate_gradients, gradient_inputs, stored_gradients
from merit_jax.pipeline.measure_conflict import multiplying_devices
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import GrowingStage

log = logging.getLogger("merit_jax")

CURVATURE = "curvature"
"""Value of `conflict.similarity`, and name of the stage that it needs."""

ALONE = {"datasets": 1, "reason": "the gradient of one dataset and its product are held whole"}
"""Datasets that are multiplied together."""


def uses_curvature(config: ConfigDict) -> bool:
    """Returns whether a config splits by curvature."""
    return config.conflict.similarity == CURVATURE and uses_gradients(config.partition.method)


def curvature_settings(run: Run) -> dict[str, Any]:
    """Returns what decides the matrix beside the mixture and the settings of the gradients, as JSON values."""
    return {"matrix": "gauss_newton", "examples": run.config.gradients.curvature_examples}


def _inputs(run: Run) -> dict[str, Any]:
    """Returns what all products have in common: every dataset of the mixture is in the matrix."""
    return {**gradient_inputs(run), "curvature": curvature_settings(run), "datasets": example_digests(run)}


def _estimate(run: Run, index: Mapping[str, Any] | None) -> Iterator[NewRow]:
    """Computes the products that are missing, each to be stored before the next.

    The gradients are taken again, since the store has them compressed.

    Raises:
        ValueError: The run has no gradients, or a product is zero or not finite.
    """
    known = {} if index is None else index["datasets"]
    missing = [dataset for dataset in run.datasets if dataset.name not in known]
    if not missing:
        return
    _gradients(run)
    cfg, reduce = run.config.gradients, compressor(run)
    leaves, frozen = tree.split(run.params, run.config.train.trainable)
    examples = MatrixBatches(run)
    matrix = GaussNewton(run.twice_model, frozen, examples, cfg.average, run.config.loss.chunk, run.place_batch)
    log.info("%d products with the Gauss-Newton matrix of %d examples", len(missing), len(examples))
    with bar(len(missing), "curvature", "dataset") as progress:
        for left, dataset in zip(range(len(missing) - 1, -1, -1), missing, strict=True):
            batches = calibration_batches(run, dataset)
            objective = Objective(run.loss_fn, frozen, batches, cfg.average, run.place_batch)
            row = _checked(reduce(_product(matrix, objective, leaves)), dataset.name)
            yield NewRow(dataset.name, dataset.report.digest, row, ALONE, left)
            progress.update()


def _product(matrix: GaussNewton, objective: Objective, leaves: Leaves) -> Leaves:
    """Returns H g; the gradient is freed with the frame."""
    return gauss_newton_product(matrix, leaves, hessian.gradient(objective, leaves))


def _checked(row: Float[np.ndarray, " d"], name: str) -> Float[np.ndarray, " d"]:
    if not np.isfinite(row).all() or not row.any():
        what = "zero" if np.isfinite(row).all() else "not finite"
        raise ValueError(
            f"dataset {name!r}: the Gauss-Newton matrix times its gradient is {what}, so its curvature is undefined; compute in "
            "float32 (model.dtype), raise gradients.curvature_examples, or split by conflict.similarity=cosine"
        )
    return row


class MatrixBatches:
    """The examples of the matrix, `gradients.curvature_examples` of each dataset; images are read anew for each product."""

    def __init__(self, run: Run) -> None:
        self._run = run
        limit, seed = run.config.gradients.curvature_examples, run.config.seed
        self._examples = [e for dataset in run.datasets for e in calibration_examples(dataset, limit, seed)]

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._examples)

    def __iter__(self) -> Iterator[Batch]:
        """Yields them in the shapes of the gradients."""
        return batches_of(self._run, self._examples)


def _gradients(run: Run) -> list[StoredRow]:
    """Opens the gradients of the mixture as it is.

    Raises:
        ValueError: One is missing, damaged, or was taken from other files or with other settings.
    """
    estimate_gradients.recorded(run)
    current, store = stored_gradients(run)["datasets"], GradientStore(run.workdir.gradients)
    if old := [name for name in run.names if name not in current]:
        raise ValueError(
            f"{store.path} has no gradient of dataset {', '.join(map(repr, old))} as it is; run --stages=gradients"
        )
    return store.rows(run.names)


def _store(run: Run) -> GradientStore:
    return GradientStore(run.workdir.curvature, "curvature product", CURVATURE)


estimate_curvature = GrowingStage(_inputs, _estimate, _store, name=CURVATURE)
"""Multiplies every dataset's gradient by the Gauss-Newton matrix of the mixture."""


def curvature_similarity(run: Run) -> Float[np.ndarray, "t t"]:
    """Computes the curvature cosines of the mixture's gradients from the stored rows.

    Raises:
        ValueError: Gradients or products are missing, damaged or made from other inputs than the run's, or the loss has no
            positive curvature along a gradient.
    """
    gradients = _gradients(run)
    estimate_curvature.recorded(run)
    products = _store(run).rows(run.names)
    found = conflict.curvature_cosines(gradients, products, run.names, mesh=multiplying_devices(run))
    log.info("curvature cosines of %d datasets, to about %.1g each", len(run.names), found.error)
    return found.values
