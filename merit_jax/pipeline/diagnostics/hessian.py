"""Diagnostics that need the Hessian: the gain of merging, and the datasets against the loss's curvature."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from merit_jax.core.registry import lookup
from merit_jax.core.seeds import fold
from merit_jax.core.types import Leaves
from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.curvature import HessianAlignment, hessian_alignment, quadrant_tasks
from merit_jax.diagnostics.hessian import Objective
from merit_jax.diagnostics.lanczos import Basis
from merit_jax.diagnostics.merging_gain import MergingGain, merging_gain
from merit_jax.diagnostics.offloaded_vectors import SpilledTrees
from merit_jax.diagnostics.predicted_gain import PartitionGain, gradient_curvature, partition_gain
from merit_jax.gradients.store import GradientStore
from merit_jax.merging import MERGERS
from merit_jax.merging.options import resolve_options
from merit_jax.pipeline.branch_parameters import ADAPTER_SPACE
from merit_jax.pipeline.calibration import calibration_batches
from merit_jax.pipeline.diagnostics.distances import all_gradients
from merit_jax.pipeline.diagnostics.models import Models, theta0, trained
from merit_jax.pipeline.diagnostics.samples import Placed, Sample
from merit_jax.pipeline.diagnostics.task import Counted, DiagnosticTask, NotPossible, Tick, Work
from merit_jax.pipeline.estimate_gradients import compressor
from merit_jax.pipeline.measure_conflict import load_conflict
from merit_jax.pipeline.merge_options import given_options
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.workdir.paths import MERGED, THETA0

PRODUCTS = "Hessian-vector products"

DRAWS = 10_000
"""Sets of random directions of each null hypothesis of the alignment."""

IN_MEMORY = 2**31
"""Bytes of Lanczos vectors that are kept on the devices; more go to disk."""


def gain_task(run: Run) -> DiagnosticTask:
    """Measures the gain of the merge over its branches, and the gain that the quadratic theory predicts.

    Raises:
        NotPossible: The merged model is no weighted mean of its branches, or something is not finished.
    """
    cfg, found = run.config.diagnostics, trained(run, branches=2)
    if (weights := found.weights) is None:
        raise NotPossible(
            f"the merging gain (Thm 3.1) is defined for a weighted mean of the branches, and {found.method} with these options "
            "is none: merge by token_weighted, without merge.search_blocks, or uniform"
        )
    sample, models = Sample(run, cfg.examples), Models(run, {**found.branches, MERGED: found.merged})
    count = len(found.branches)

    def measure(tick: Tick) -> MergingGain:
        objective = Objective(run.twice_loss_fn, models.frozen, sample.batches(tick))
        branches = (models.leaves(name) for name in found.branches)
        return merging_gain(objective, models.leaves(MERGED), branches, weights)

    return DiagnosticTask(
        {**sample.inputs, **{key: found.inputs[key] for key in ("branches", "merged")}},
        (Work(count, "loss evaluations", sample.count), Work(count, PRODUCTS, sample.count)),
        measure,
    )


def split_gain_task(run: Run) -> DiagnosticTask:
    """Predicts the gain of the split by the quadratic theory before training, against random splits.

    Datasets weigh in a branch, and branches in the merge, as the run trains and merges; for an operator that is no weighted mean,
    as in the average by tokens.
    """
    if run.config.gradients.space == ADAPTER_SPACE:
        raise NotPossible(
            "the gain of a split is predicted from gradients of theta0's own parameters: gradients.space = full"
        )
    cfg, groups = run.config.diagnostics, _groups(run)
    weights, average = _fixed_weights(run, int(groups.max()) + 1), run.config.train.average
    counts = run.all_tokens if run.config.merge.tokens == "all" else run.tokens
    index, sample = all_gradients(run), Sample(run, cfg.examples)
    own = Sample(run, run.config.gradients.examples)

    def measure(tick: Tick) -> PartitionGain:
        models = theta0(run)
        leaves = models.leaves(THETA0)
        objective = Objective(run.twice_loss_fn, models.frozen, sample.batches(tick))
        M = gradient_curvature(
            lambda vector: hessian.product(objective, leaves, vector),
            _gradients(run, models, leaves, tick),
            GradientStore(run.workdir.gradients).rows(run.names),
            compressor(run),
            _scale(run, leaves),
        )
        return partition_gain(
            M,
            groups,
            np.array(run.samples if average == "example" else run.tokens),
            np.array(run.samples),
            counts=np.array(counts),
            weights=weights,
            learning_rate=run.config.train.learning_rate,
            draws=cfg.splits,
            seed=fold(run.config.seed, "splits"),
        )

    return DiagnosticTask(
        {
            **sample.inputs,
            "gradients": index["inputs"],
            "groups": groups.tolist(),
            "average": average,
            "weights": run.config.merge.tokens if weights is None else weights,
            "learning_rate": run.config.train.learning_rate,
            "splits": cfg.splits,
        },
        (
            Work(1, f"gradient of each of {len(run.names)} datasets", own.count),
            Work(len(run.names), PRODUCTS, sample.count),
        ),
        measure,
    )


def _fixed_weights(run: Run, branches: int) -> list[float] | None:
    """Returns the weights of a mean that weighs branches whatever their data; None for any other merge."""
    merger = lookup(MERGERS, run.config.merge.method, "merge.method")
    options = resolve_options(merger.leaf, given_options(run.config.merge))
    used = merger.used_weights([1 / branches] * branches, options)
    return list(used.values) if used.values and used.mean and not merger.weighted(options) else None


def curvature_task(run: Run) -> DiagnosticTask:
    """Aligns conflict directions with the Hessian's leading eigenvectors, at theta0 (MERIT App. F.3)."""
    cfg = run.config.diagnostics
    names = _quadrants(run)
    sample = Sample(run, cfg.curvature_examples, names)

    def measure(tick: Tick) -> HessianAlignment:
        models = theta0(run)
        leaves = models.leaves(THETA0)
        objective = Objective(run.twice_loss_fn, models.frozen, sample.batches(tick), run.config.gradients.average)
        each = [objective._replace(batches=Sample(run, cfg.curvature_examples, [n]).batches(tick)) for n in names]
        with _basis(leaves, cfg.iterations) as basis:
            return hessian_alignment(
                lambda vector: hessian.product(objective, leaves, vector),
                [hessian.gradient(own, leaves) for own in each],
                iterations=cfg.iterations,
                eigenvectors=cfg.eigenvectors,
                draws=DRAWS,
                seed=fold(run.config.seed, "lanczos"),
                basis=basis,
            )

    settings = {key: cfg[key] for key in ("iterations", "eigenvectors")}
    return DiagnosticTask(
        {**sample.inputs, **settings, "average": run.config.gradients.average, "draws": DRAWS},
        (
            Work(cfg.iterations, PRODUCTS, sample.count),
            Work(1, f"gradient of each of {len(names)} datasets", sample.count),
        ),
        measure,
    )


def _quadrants(run: Run) -> list[str]:
    """Returns the datasets that represent the conflict.

    Raises:
        NotPossible: There are no similarities, or they have fewer than two axes.
    """
    if not run.workdir.conflict.exists():
        raise NotPossible("there are no similarities: run merit run --stages=gradients,conflict")
    similarity, _ = load_conflict(run)
    if similarity is None:
        raise NotPossible(
            "the similarities were too many to keep: raise conflict.similarity_bytes, delete conflict.npz and run "
            "merit run --stages=conflict"
        )
    try:
        return [run.names[i] for i in quadrant_tasks(similarity)]
    except ValueError as error:
        raise NotPossible(f"the alignment needs two axes of conflict: {error}") from None


def _groups(run: Run) -> np.ndarray:
    """Returns the group of each dataset.

    Raises:
        NotPossible: The mixture is not partitioned, or not by datasets into a power of two of groups.
    """
    if not run.workdir.partition.exists():
        raise NotPossible("the mixture is not partitioned: run merit run --stages=mixture,gradients,conflict,partition")
    branches = load_partition(run).branches
    count, owner = len(branches), {s.dataset: k for k, branch in enumerate(branches) for s in branch.shares}
    whole = sum(len(branch.shares) for branch in branches) == len(owner)
    if not whole or count < 2 or count & (count - 1):
        raise NotPossible(f"the gain of a split is predicted for 2, 4, 8, ... groups of datasets; this run has {count}")
    return np.array([owner[name] for name in run.names], np.int32)


def _gradients(run: Run, models: Models, leaves: Leaves, tick: Tick) -> Iterator[Leaves]:
    """Yields the whole gradients whose kept entries the run has stored."""
    objective = Objective(run.twice_loss_fn, models.frozen, (), run.config.gradients.average)
    for dataset in run.datasets:
        batches = Placed(run, Counted(calibration_batches(run, dataset), tick))
        yield hessian.gradient(objective._replace(batches=batches), leaves)


def _scale(run: Run, leaves: Leaves) -> float:
    """Returns the factor by which inner products of strided gradients fall short."""
    if run.config.gradients.reduction != "stride":
        return 1.0
    kept = len(GradientStore(run.workdir.gradients).rows(run.names[:1])[0])
    return sum(leaf.size for leaf in leaves.values()) / kept


@contextlib.contextmanager
def _basis(leaves: Leaves, iterations: int) -> Iterator[Basis]:
    """Yields storage for the vectors of Lanczos: in memory, or on disk where they are large."""
    if 4 * iterations * sum(leaf.size for leaf in leaves.values()) <= IN_MEMORY:
        yield []
        return
    with tempfile.TemporaryDirectory() as folder:
        yield SpilledTrees(Path(folder))
