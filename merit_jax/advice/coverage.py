"""Says whether a mixture, or a method on it, is like those that a map has."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from merit_jax.advice.features import METHOD, MIXTURE, vector
from merit_jax.advice.observations import Observation

RANGED = ("halvings", "gap")
"""Features of a method that have to be in the map's range; the others are yes or no."""

ROOM = 0.1
"""Difference of such a feature from the range up to which it counts as inside."""


class Coverage(NamedTuple):
    """The mixtures of a map.

    Attributes:
        mixtures: Features of each cell's mixture, in the order of `MIXTURE`, mean over its seeds.
        farthest: Largest distance of one of them from the nearest in another world.
        lowest: Smallest value of each of `RANGED`.
        highest: Largest value.
    """

    mixtures: Float[np.ndarray, "cells d"]
    farthest: float
    lowest: Float[np.ndarray, " 2"]
    highest: Float[np.ndarray, " 2"]

    def distance(self, mixture: Mapping[str, float]) -> float:
        """Returns the distance to the nearest mixture of the map, the root mean square over features of `difference / unit`.

        The unit of a feature is its standard deviation on the map, or its tolerance where that is larger.
        """
        return float(_distances(np.array([vector(mixture, tuple(MIXTURE))]), self.mixtures, self.mixtures).min())

    def outside(self, mixture: Mapping[str, float]) -> list[str]:
        """Returns the reasons, in words, for which a mixture is unlike those of the map; none if it is not."""
        found = []
        values = vector(mixture, tuple(MIXTURE))
        for feature, value, column in zip(MIXTURE.values(), values, self.mixtures.T, strict=True):
            low, high = column.min(), column.max()
            if not np.isfinite(value):
                found.append(f"{feature.label}: cannot be told from noise")
            elif not low - feature.tolerance <= value <= high + feature.tolerance:
                found.append(
                    f"{feature.label}: {feature.show(value)}; the map has {feature.show(low)} to {feature.show(high)}"
                )
        if not found and self.distance(mixture) > self.farthest:
            found.append(
                f"its measurements together are at distance {self.distance(mixture):.2f} from the nearest mixture of the map, "
                f"whose own are at most {self.farthest:.2f} apart"
            )
        return found

    def method_is_outside(self, method: Mapping[str, float]) -> bool:
        """Returns whether the map has no method with as many branches, or with branches as unlike; never for joint training."""
        if not method["apart"]:
            return False
        values = np.array(vector(method, RANGED))
        return not bool(np.all((values >= self.lowest - ROOM) & (values <= self.highest + ROOM)))

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        arrays = {name: part for name, part in self._asdict().items() if name != "farthest"}
        return {"farthest": round(self.farthest, 6), **{name: part.round(6).tolist() for name, part in arrays.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Coverage":
        """Reads `to_dict`'s result back."""
        return cls(np.array(data["mixtures"]), data["farthest"], np.array(data["lowest"]), np.array(data["highest"]))


def cover(observations: Sequence[Observation]) -> Coverage:
    """Returns the coverage of a map's observations."""
    cells = {row.cell: row.world for row in observations}
    mixtures = np.array([np.mean([r.mixture for r in observations if r.cell == cell], axis=0) for cell in cells])
    apart = _distances(mixtures, mixtures, mixtures)
    worlds = np.array(list(cells.values()))
    apart[worlds[:, None] == worlds] = np.inf
    nearest = apart.min(axis=1)
    ranged = np.array([[row.features[METHOD.index(name)] for name in RANGED] for row in observations])
    farthest = float(nearest.max()) if np.isfinite(nearest).all() else float("inf")
    return Coverage(mixtures, farthest, ranged.min(axis=0), ranged.max(axis=0))


def _distances(one: np.ndarray, other: np.ndarray, reference: np.ndarray) -> np.ndarray:
    unit = np.maximum(reference.std(axis=0), [feature.tolerance for feature in MIXTURE.values()])
    return np.sqrt((((one[:, None] - other) / unit) ** 2).mean(axis=-1))
