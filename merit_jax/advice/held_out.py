"""Evaluates a forecaster on worlds that it was not fitted on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from merit_jax.advice.forecaster import Forecast, Forecaster, fit_forecaster
from merit_jax.advice.observations import JOINT, Observation
from merit_jax.advice.recommendation import CERTAIN, recommend

FIXED = (JOINT, "examples4", "merit2d")
"""Methods that one could always take: joint training, i.i.d. slices, MERIT-2D."""


class HeldOut(NamedTuple):
    """Forecasts of each world by a forecaster fitted on the others.

    Attributes:
        worlds: Number of worlds.
        cells: Of cells in them.
        rank_correlation: Spearman's correlation of forecast and measured gains over the methods of a cell, joint training
            among them; mean over cells.
        regret: Points below the best method of a cell, mean over cells: of the `recommended` method, of the one with the
            `highest` forecast, and of always taking one of `FIXED`, where every cell has it.
        error: Root mean square of forecast less measured gain.
        error_of_zero: The same of the forecast that no method differs from joint training.
        covered: Share of the measured gains in the forecast's 95 % interval, whose width counts the noise of the seeds.
    """

    worlds: int
    cells: int
    rank_correlation: float
    regret: Mapping[str, float]
    error: float
    error_of_zero: float
    covered: float


class _Cell(NamedTuple):
    """Measured and forecast gains of one cell's methods, and the number of seeds behind each."""

    measured: dict[str, float]
    forecast: dict[str, Forecast]
    seeds: dict[str, int]


def leave_one_world_out(observations: Sequence[Observation], fitted: Forecaster) -> HeldOut | None:
    """Forecasts every world by a forecaster of the others.

    Args:
        observations: Of all worlds.
        fitted: The forecaster of all of them, whose variances are begun with.

    Returns:
        The outcome; None for fewer than three worlds, of which no law can be learnt with one left out.
    """
    worlds = list(dict.fromkeys(row.world for row in observations))
    if len(worlds) < 3:
        return None
    cells = []
    for world in worlds:
        others = fit_forecaster([row for row in observations if row.world != world], fitted)
        cells += _forecast_cells([row for row in observations if row.world == world], others)
    methods = [(cell, name) for cell in cells for name in cell.measured if name != JOINT]
    measured = np.array([cell.measured[name] for cell, name in methods])
    expected = np.array([cell.forecast[name].mean for cell, name in methods])
    room = np.array([_room(cell.forecast[name], cell.seeds[name]) for cell, name in methods])
    return HeldOut(
        len(worlds),
        len(cells),
        float(np.mean([_rank_correlation(cell) for cell in cells])),
        _regrets(cells),
        float(np.sqrt(np.mean((expected - measured) ** 2))),
        float(np.sqrt(np.mean(measured**2))),
        float(np.mean(np.abs(expected - measured) <= room)),
    )


def _forecast_cells(rows: Sequence[Observation], forecaster: Forecaster) -> list[_Cell]:
    """Forecasts of a world's cells, each from the mean of its features over seeds."""
    cells: dict[str, dict[str, list[Observation]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[row.cell][row.method].append(row)
    found = []
    for methods in cells.values():
        cell = _Cell({JOINT: 0.0}, {JOINT: Forecast(0.0, 0.0, 0.0)}, {})
        for name, own in methods.items():
            mixture = np.mean([row.mixture for row in own], axis=0).tolist()
            features = np.mean([row.features for row in own], axis=0).tolist()
            cell.measured[name] = float(np.mean([row.gain for row in own]))
            cell.forecast[name] = forecaster.forecast_vectors(mixture, features)
            cell.seeds[name] = len(own)
        found.append(cell)
    return found


def _room(forecast: Forecast, seeds: int) -> float:
    """Half the width of the 95 % interval of a mean over so many seeds."""
    return CERTAIN * float(np.sqrt(forecast.std**2 + (forecast.run**2 - forecast.std**2) / seeds))


def _rank_correlation(cell: _Cell) -> float:
    """Spearman's correlation; 0 where the forecasts, or the gains, are all equal."""
    measured, expected = list(cell.measured.values()), [cell.forecast[name].mean for name in cell.measured]
    if len(set(measured)) < 2 or len(set(expected)) < 2:
        return 0.0
    return float(scipy.stats.spearmanr(measured, expected).statistic)


def _regrets(cells: Sequence[_Cell]) -> dict[str, float]:
    def mean(chosen: Sequence[str]) -> float:
        lost = [max(cell.measured.values()) - cell.measured[name] for cell, name in zip(cells, chosen, strict=True)]
        return float(np.mean(lost))

    found = {
        "recommended": mean([recommend(cell.forecast, cluster=True).method for cell in cells]),
        "highest": mean([max(cell.forecast, key=lambda name: cell.forecast[name].mean) for cell in cells]),
    }
    everywhere = [name for name in FIXED if all(name in cell.measured for cell in cells)]
    return {**found, **{f"always {name}": mean([name] * len(cells)) for name in everywhere}}
