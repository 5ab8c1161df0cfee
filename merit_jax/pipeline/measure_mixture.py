"""`measurements.json`: what a mixture's gradients and theta0's loss say before training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from merit_jax.advice.features import mixture_features
from merit_jax.advice.sharing import GradientGram, measure_sharing
from merit_jax.core import tree
from merit_jax.diagnostics.bootstrap import examples_needed
from merit_jax.diagnostics.mean_loss import mean_loss
from merit_jax.gradients.store import GradientStore
from merit_jax.pipeline.branch_parameters import trained_paths
from merit_jax.pipeline.diagnostics.models import theta0
from merit_jax.pipeline.diagnostics.samples import Sample
from merit_jax.pipeline.diagnostics.task import as_json
from merit_jax.pipeline.estimate_gradients import estimate_gradients
from merit_jax.pipeline.measure_conflict import measure_conflict, unit_rows
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.run_diagnostics import run_diagnostics
from merit_jax.pipeline.stage import Stage
from merit_jax.workdir.artifact_types import JsonArtifact
from merit_jax.workdir.artifacts import read_inputs, read_json
from merit_jax.workdir.paths import THETA0

AXES = 3
"""Conflict axes whose share of the conflict is measured."""


def measure_mixture(run: Run) -> Mapping[str, Any]:
    """Measures a mixture at theta0; gradients, similarities and calibration that are there already are reused.

    Returns:
        The content of `measurements.json`: `datasets`, each with its `examples`, `tokens`, `calibration` (examples of its
        gradient), `reliability` of the gradient, examples `needed` for `diagnostics.reliability`, and the cosines without
        noise `with_others` and `with_mixture` (null where the gradient cannot be told from noise); then, of the mixture, the
        `estimated` and the `shared` mean cosine with its `error`, the share of the conflict on each of the first `axes`, and
        theta0's `loss`.

    Raises:
        ValueError: No dataset is large enough for two blocks of calibration examples, there is only one dataset, or an artifact
            was made from other inputs.
    """
    for stage in (estimate_gradients, measure_conflict):
        stage(run)
    run_diagnostics(run, ("calibration",))
    _stage(run)
    return _stage.read(run)


def gradient_gram(run: Run, measured: Mapping[str, Any]) -> GradientGram:
    """Returns the inner products of the run's gradients, without noise.

    Args:
        run: The run.
        measured: Result of `measure_mixture`.
    """
    reliability = [measured["datasets"][name]["reliability"] for name in run.names]
    return _gram(run, np.array(reliability, np.float64))


def features_of(run: Run, measured: Mapping[str, Any], steps: int) -> dict[str, float]:
    """Returns the features of the run's mixture, by the names of `advice.features.MIXTURE`.

    Args:
        run: The run.
        measured: Result of `measure_mixture`.
        steps: Optimizer steps of joint training.
    """
    leaves = tree.flatten(run.theta0.abstract)
    return mixture_features(
        shared=_number(measured["shared"]),
        axes=float(sum(measured["axes"])),
        reliability=float(np.mean([row["reliability"] for row in measured["datasets"].values()])),
        loss=measured["loss"],
        steps=steps,
        passes=float(run.config.train.epochs),
        datasets=len(run.names),
        parameters=sum(int(np.prod(leaves[path].shape)) for path in trained_paths(run)),
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _inputs(run: Run) -> dict[str, Any]:
    return {
        "conflict": measure_conflict.recorded(run),
        "calibration": read_inputs(run.workdir.diagnostic("calibration")),
        "loss": Sample(run, run.config.diagnostics.examples).inputs,
    }


def _measure(run: Run) -> dict[str, Any]:
    target = run.config.diagnostics.reliability
    used = np.minimum([len(dataset.train) for dataset in run.datasets], run.config.gradients.examples)
    noise = _noise(run)
    reliability = used / (used + noise)
    sharing = measure_sharing(_gram(run, reliability), np.array(run.tokens, np.float64))
    sample = Sample(run, run.config.diagnostics.examples)
    loss = mean_loss(run.loss_fn, sample.batches(lambda count: None))(theta0(run)[THETA0])
    columns = {
        "examples": run.samples,
        "tokens": run.tokens,
        "calibration": used,
        "reliability": reliability,
        "needed": [examples_needed(float(r), int(n), target) for r, n in zip(reliability, used, strict=True)],
        "with_others": sharing.with_others,
        "with_mixture": sharing.with_mixture,
    }
    rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    axes = measure_conflict.read(run)["explained"][:AXES].tolist()
    whole = {"estimated": sharing.estimated, "shared": sharing.shared, "error": sharing.error, "loss": loss}
    return {
        "datasets": {n: _json(dict(zip(columns, r, strict=True))) for n, r in zip(run.names, rows, strict=True)},
        **_json(whole),
        "axes": axes,
    }


_stage = Stage(_inputs, _measure, lambda run: JsonArtifact(run.workdir.measurements), command="merit advise")


def _noise(run: Run) -> np.ndarray:
    """Returns the examples at which each dataset's gradient has reliability ½, from its halves by the Spearman-Brown formula.

    A dataset that is too small to halve is given the median of the others.
    """
    block = run.config.diagnostics.calibration_block
    rows = {row["name"]: row for row in read_json(run.workdir.diagnostic("calibration"))["result"]["datasets"]}
    found = np.array([_half(rows[name], block) if name in rows else np.nan for name in run.names])
    return np.where(np.isnan(found), np.nanmedian(found), found)


def _half(row: Mapping[str, Any], block: int) -> float:
    """Returns the number of examples of reliability ½; infinite where the halves do not agree at all."""
    return examples_needed(row["reliability"], row["examples"] // block // 2 * block, 0.5)


def _gram(run: Run, reliability: np.ndarray) -> GradientGram:
    similarity = measure_conflict.read(run).get("similarity")
    norms = GradientStore(run.workdir.gradients).norms(run.names)
    if similarity is not None:
        C = np.asarray(similarity, np.float64)
        return GradientGram(lambda V: C @ V, norms, reliability)
    rows = unit_rows(run)
    return GradientGram(lambda V: np.asarray(rows @ (rows.T @ V.astype(np.float32)), np.float64), norms, reliability)


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: as_json(value) for name, value in values.items()}
