"""Reads a map of experiments (`map.json` of benchmarks/study_map.py) as observed gains over joint training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from merit_jax.advice.features import METHOD, MIXTURE, PILOT, vector

DECIDING = "interpolated_skill"
"""The field of a run by which methods are recommended: skill where its frontier falls to 95 % of what theta0 could do."""

MEASURES = {DECIDING: "skill at 95 % retention", "mean": "mean of the suites"}
"""Fields of a run that are forecast, and what they are."""

JOINT = "joint"
"""Name of the method that gains are measured against."""


class Observation(NamedTuple):
    """The gain of one method over joint training, in one seed of one cell.

    Attributes:
        world: Name of the world; cells of a world are left out together.
        cell: Name of the cell: a world, a theta0 and a training length.
        seed: The seed.
        method: The method.
        mixture: Features of the mixture, in the order of `MIXTURE`.
        features: Features of the method on it, in the order of `METHOD`, then `PILOT` if there was one.
        gain: In points.
    """

    world: str
    cell: str
    seed: int
    method: str
    mixture: tuple[float, ...]
    features: tuple[float, ...]
    gain: float


def read_observations(
    cells: Sequence[Mapping[str, Any]], measure: str = DECIDING, *, pilot: bool = False
) -> list[Observation]:
    """Returns the gains of every method that was measured before training, paired by seed with joint training.

    Args:
        cells: The map.
        measure: A key of `MEASURES`.
        pilot: Take those with a pilot only, and its features too.

    Raises:
        ValueError: No cell has measurements.
    """
    names = METHOD + PILOT if pilot else METHOD
    found = []
    for cell in cells:
        scores = {method: seed_means(runs, measure) for method, runs in cell["methods"].items()}
        for text, measured in cell.get("measured", {}).items():
            seed, mixture = int(text), tuple(vector(measured["mixture"], tuple(MIXTURE)))
            for method, features in measured["methods"].items():
                if method == JOINT or (pilot and not set(PILOT) <= features.keys()):
                    continue
                if seed in scores.get(method, {}) and seed in scores[JOINT]:
                    gain = 100 * (scores[method][seed] - scores[JOINT][seed])
                    own = tuple(vector(features, names))
                    found.append(Observation(cell["world"], cell["cell"], seed, method, mixture, own, gain))
    finite = [row for row in found if np.isfinite([*row.mixture, *row.features]).all()]
    if not finite and not pilot:
        raise ValueError(
            "the map has no measurements of its mixtures, so nothing can be forecast from it; run benchmarks.study_map of this "
            "version again, which takes them for every finished cell"
        )
    return finite


def seed_means(runs: Sequence[Mapping[str, Any]], measure: str) -> dict[int, float]:
    """Returns the mean score of each seed's runs; runs without one are left out.

    Examples:
        >>> seed_means([{"seed": 0, "mean": 0.25}, {"seed": 0, "mean": 0.75}, {"seed": 1, "mean": None}], "mean")
        {0: 0.5}
    """
    found: dict[int, list[float]] = {}
    for run in runs:
        if run[measure] is not None:
            found.setdefault(run["seed"], []).append(run[measure])
    return {seed: float(np.mean(values)) for seed, values in found.items()}
