"""Experiment trackers by name, each imported when a branch is tracked."""

import importlib.util
from collections.abc import Mapping, Sequence

from merit_jax.core.registry import lookup
from merit_jax.training.trackers.interface import TrackedRun, Tracker, TrackerKind
from merit_jax.training.trackers.mlflow import MLflow
from merit_jax.training.trackers.tensorboard import TensorBoard
from merit_jax.training.trackers.trackio import Trackio
from merit_jax.training.trackers.weights_and_biases import WeightsAndBiases

__all__ = ["TRACKERS", "TrackedRun", "Tracker", "TrackerKind", "check_trackers"]

TRACKERS: Mapping[str, TrackerKind] = {
    "tensorboard": TrackerKind("tensorboardX", "tensorboardX", TensorBoard),
    "wandb": TrackerKind("wandb", "wandb", WeightsAndBiases),
    "trackio": TrackerKind("trackio", "trackio", Trackio),
    "mlflow": TrackerKind("mlflow", "mlflow", MLflow),
}
"""Name in `train.trackers` -> the tracker."""


def check_trackers(names: Sequence[str]) -> None:
    """Checks that trackers are installed, without importing them.

    Raises:
        ValueError: One is unknown, or not installed.
    """
    for name in names:
        kind = lookup(TRACKERS, name, "train.trackers")
        if importlib.util.find_spec(kind.module) is None:
            raise ValueError(
                f"train.trackers names {name!r}, which needs the package {kind.package}: pip install {kind.package}, or "
                "pip install 'merit-jax[trackers]' for all trackers; or leave it out"
            )
