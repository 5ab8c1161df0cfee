"""Compares the merging gains of an experiment's methods with those that the quadratic theory predicts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import scipy

from merit_jax.launch.experiments.methods import Comparison
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir


class Gain(NamedTuple):
    """The merging gain of one method at one seed (`diagnostics/gain.json` of its workdir), nats.

    Attributes:
        seed: `config.seed`.
        method: The method.
        learning_rate: Peak learning rate of its branches.
        predicted: From the Hessian at the merged model (MERIT Thm 3.1).
        obtained: Mean loss of the branches less that of the merged model.
        branches: Weighted mean loss of the branches.
        merged: Loss of the merged model.
    """

    seed: int
    method: str
    learning_rate: float
    predicted: float
    obtained: float
    branches: float
    merged: float


class Correlation(NamedTuple):
    """Correlation of two columns of gains.

    Attributes:
        merges: Number of rows.
        pearson: Pearson's, of the values.
        spearman: Spearman's, of the ranks.
    """

    merges: int
    pearson: float
    spearman: float


def read_gains(seed: int, comparison: Comparison) -> list[Gain]:
    """Reads the measured gains of the methods of one seed."""
    found = []
    for spec, task in comparison.merged.items():
        path = Workdir(task.root, task.root).diagnostic("gain")
        if path.exists():
            result = read_json(path)["result"]
            losses = (result["mean_branch_loss"], result["merged_loss"])
            rate = task.config.train.learning_rate
            found.append(Gain(seed, spec, rate, result["predicted"], result["obtained"], *losses))
    return found


def correlation(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """Returns the correlation of two columns; None for fewer than three rows or a constant column.

    Examples:
        >>> correlation([1.0, 2.0, 3.0], [1.0, 4.0, 9.0]).spearman
        1.0
    """
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return Correlation(len(x), float(scipy.stats.pearsonr(x, y)[0]), float(scipy.stats.spearmanr(x, y)[0]))


def to_json(found: Sequence[Gain]) -> dict[str, Any]:
    """Returns JSON values: the gains and their correlations, over all and among those of one learning rate."""
    rates = sorted({gain.learning_rate for gain in found})
    groups = {"all": found, **{f"{rate:g}": [g for g in found if g.learning_rate == rate] for rate in rates}}
    return {
        "gains": [gain._asdict() for gain in found],
        "obtained with predicted": {name: _between(group, "obtained", "predicted") for name, group in groups.items()},
        "merged loss with obtained": {name: _between(group, "merged", "obtained") for name, group in groups.items()},
    }


def _between(found: Sequence[Gain], one: str, other: str) -> dict[str, float] | None:
    result = correlation([getattr(gain, one) for gain in found], [getattr(gain, other) for gain in found])
    return result._asdict() if result else None
