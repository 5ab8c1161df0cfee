"""What mergekit was asked to merge."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
MODELS = ("a", "b", "c", "d")
BIASED = FOLDER / "biased"
"""Folder of random models whose layers have biases."""


class Case(NamedTuple):
    """Arguments of `merit_jax.launch.merge.merge_folders`, and the folder that holds the base and the models."""

    method: str
    models: tuple[str, ...]
    weights: tuple[float, ...] | None
    options: Mapping[str, Any] = MappingProxyType({})
    folder: Path = FOLDER


TWO, FOUR = (0.7, 0.3), (0.4, 0.3, 0.2, 0.1)
WEIGHTED = {"trim_scope": "tensor", "weighted_election": True, "weighted_mean": True}

CASES = {
    "linear2": Case("token_weighted", MODELS[:2], TWO),
    "linear4": Case("token_weighted", MODELS, FOUR),
    "ties2": Case("ties", MODELS[:2], TWO, {**WEIGHTED, "density": 0.5, "scale": 0.8}),
    "ties4": Case("ties", MODELS, None),
    "ties3_biases": Case("ties", MODELS[:3], None, folder=BIASED),
    "task_arithmetic4": Case("task_arithmetic", MODELS, None),
    "model_stock4": Case("model_stock", MODELS, None),
    "model_stock3_biases": Case("model_stock", MODELS[:3], None, folder=BIASED),
}
