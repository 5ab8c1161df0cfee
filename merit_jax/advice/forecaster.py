"""Forecasts the gain of a method over joint training from features measured before training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from merit_jax.advice.features import METHOD, MIXTURE, PILOT, vector
from merit_jax.advice.mixed_model import KINDS, Data, Posterior, design, fit
from merit_jax.advice.observations import Observation

DIGITS = 6
"""Significant digits that are kept in a file."""


class Forecast(NamedTuple):
    """The difference of a method from joint training, in points.

    Attributes:
        mean: Expected difference.
        std: Standard deviation of the expected difference: what the map leaves open about a new world.
        run: Standard deviation of the difference in a single run of each.
    """

    mean: float
    std: float
    run: float


class Forecaster(NamedTuple):
    """A fitted law of gains.

    Attributes:
        centre: Mean of each feature of a mixture on the map.
        spread: Its standard deviation there, at least the tolerance of the feature, so that one that hardly differs over the map
            says little of mixtures where it is another; 0 for one that is the same everywhere, which says nothing.
        unit: Root mean square of each feature of a method.
        posterior: Coefficients and variances.
    """

    centre: Float[np.ndarray, " d"]
    spread: Float[np.ndarray, " d"]
    unit: Float[np.ndarray, " p"]
    posterior: Posterior

    def forecast(self, mixture: Mapping[str, float], method: Mapping[str, float]) -> Forecast:
        """Forecasts one method on one mixture; joint training differs from itself by 0."""
        names = METHOD + PILOT if len(self.unit) > len(METHOD) else METHOD
        return self.forecast_vectors(vector(mixture, tuple(MIXTURE)), vector(method, names))

    def forecast_vectors(self, mixture: Sequence[float], method: Sequence[float]) -> Forecast:
        """Forecasts from features in the order of `MIXTURE` and of `METHOD`, then `PILOT`."""
        x, phi = self._scaled(np.array([mixture], np.float64), np.array([method], np.float64))
        if not phi.any():
            return Forecast(0.0, 0.0, 0.0)
        z, variances = design(phi, x)[0], dict(zip(KINDS, self.posterior.variances, strict=True))
        open_law = z @ self.posterior.covariance @ z
        departure = variances["world"] * (phi**2).sum() / phi.shape[1] + variances["method"]
        noise = variances["joint"] + variances["run"]
        std = np.sqrt(max(open_law + departure, 0.0))
        return Forecast(float(z @ self.posterior.mean), float(std), float(np.sqrt(std**2 + noise)))

    def _scaled(self, mixtures: np.ndarray, methods: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _divide(mixtures - self.centre, self.spread), _divide(methods, self.unit)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        parts = {**self._asdict(), **self.posterior._asdict()}
        del parts["posterior"]
        return {name: _rounded(values) for name, values in parts.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Forecaster":
        """Reads `to_dict`'s result back."""
        parts = {name: np.array(values, np.float64) for name, values in data.items()}
        law = Posterior(*(parts[name] for name in Posterior._fields))
        return cls(parts["centre"], parts["spread"], parts["unit"], law)


TOLERANCES = np.array([feature.tolerance for feature in MIXTURE.values()])
"""Of each feature of a mixture, the smallest difference that makes another mixture."""


def fit_forecaster(observations: Sequence[Observation], start: Forecaster | None = None) -> Forecaster:
    """Fits the law of gains to the observations of a map.

    Args:
        observations: Of one measure.
        start: A forecaster of nearly the same observations, whose variances are begun with.
    """
    mixtures = np.array([row.mixture for row in observations], np.float64)
    methods = np.array([row.features for row in observations], np.float64)
    spread = mixtures.std(axis=0)
    spread[spread < 1e-9 * np.maximum(np.abs(mixtures).max(axis=0), 1)] = 0
    spread = np.where(spread > 0, np.maximum(spread, TOLERANCES), 0)
    blank = Posterior(np.zeros(0), np.zeros((0, 0)), np.zeros(len(KINDS)))
    known = Forecaster(mixtures.mean(axis=0), spread, np.sqrt((methods**2).mean(axis=0)), blank)
    x, phi = known._scaled(mixtures, methods)
    columns = ("world", "cell", "method", "seed")
    worlds, cells, names, seeds = ([getattr(row, name) for row in observations] for name in columns)
    data = Data(phi, x, worlds, cells, names, seeds, np.array([row.gain for row in observations], np.float64))
    return known._replace(posterior=fit(data, None if start is None else start.posterior.variances))


def _divide(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The quotient; 0 where the divisor is."""
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)


def _rounded(values: np.ndarray) -> Any:
    return np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"), otypes=[float])(values).tolist()
