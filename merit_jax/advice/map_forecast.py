"""Everything that is learnt from a map, as one JSON file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from merit_jax.advice.coverage import Coverage, cover
from merit_jax.advice.features import METHOD, MIXTURE, PILOT
from merit_jax.advice.forecaster import Forecaster, fit_forecaster
from merit_jax.advice.held_out import HeldOut, leave_one_world_out
from merit_jax.advice.observations import MEASURES, Observation, read_observations
from merit_jax.workdir.artifacts import write_text

SHIPPED = Path(__file__).parent / "forecast.json"
"""The forecast that comes with the package, if there is one."""

NAMES = {"mixture": list(MIXTURE), "method": list(METHOD), "pilot": list(PILOT)}
"""The features that a file was fitted with, in order."""

FEWEST = 3
"""Cells with a pilot, at least, for a forecast that uses one."""


class Law(NamedTuple):
    """A forecaster and its record.

    Attributes:
        forecaster: Fitted on the whole map.
        held_out: Of worlds left out one at a time; None of fewer than three.
    """

    forecaster: Forecaster
    held_out: HeldOut | None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        return {**self.forecaster.to_dict(), "held_out": self.held_out._asdict() if self.held_out else None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Law":
        """Reads `to_dict`'s result back."""
        rest = {name: part for name, part in data.items() if name != "held_out"}
        return cls(Forecaster.from_dict(rest), HeldOut(**data["held_out"]) if data["held_out"] else None)


class MapForecast(NamedTuple):
    """Forecasts from a map.

    Attributes:
        laws: A key of `MEASURES` -> its law.
        pilot: The same with the features of a pilot; empty where the map has none.
        coverage: The map's mixtures.
        cells: Number of cells.
        seeds: Number of pairs of a cell and a seed.
    """

    laws: Mapping[str, Law]
    pilot: Mapping[str, Law]
    coverage: Coverage
    cells: int
    seeds: int

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        parts = {kind: {name: law.to_dict() for name, law in getattr(self, kind).items()} for kind in ("laws", "pilot")}
        about = {"features": NAMES, "cells": self.cells, "seeds": self.seeds, "coverage": self.coverage.to_dict()}
        return {**about, **parts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> "MapForecast":
        """Reads `to_dict`'s result back.

        Raises:
            ValueError: It was fitted with other features, by another version.
        """
        if data.get("features") != NAMES:
            raise ValueError(
                f"{where} was fitted with other features than this version measures; fit it again from its map"
            )
        laws, pilot = ({name: Law.from_dict(part) for name, part in data[kind].items()} for kind in ("laws", "pilot"))
        return cls(laws, pilot, Coverage.from_dict(data["coverage"]), data["cells"], data["seeds"])


def fit_map(cells: Sequence[Mapping[str, Any]]) -> MapForecast:
    """Fits the laws of a map, and tries each on worlds left out.

    Args:
        cells: The content of `map.json`.

    Raises:
        ValueError: No cell has measurements of its mixture.
    """
    rows = read_observations(cells)
    laws = {measure: _law(read_observations(cells, measure)) for measure in MEASURES}
    with_pilot = {measure: read_observations(cells, measure, pilot=True) for measure in MEASURES}
    enough = all(len({row.cell for row in found}) >= FEWEST for found in with_pilot.values())
    pilot = {measure: _law(found) for measure, found in with_pilot.items()} if enough else {}
    places = {(row.cell, row.seed) for row in rows}
    return MapForecast(laws, pilot, cover(rows), len({cell for cell, _ in places}), len(places))


def _law(rows: Sequence[Observation]) -> Law:
    forecaster = fit_forecaster(rows)
    return Law(forecaster, leave_one_world_out(rows, forecaster))


def read_map(path: epath.Path) -> MapForecast:
    """Reads a fitted forecast, or fits a `map.json`.

    Raises:
        ValueError: It is missing, is neither, or has no measurements.
    """
    expected = "expected the map.json of benchmarks.study_map, or a forecast fitted from one"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {expected}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); {expected}") from None
    try:
        return fit_map(content) if isinstance(content, list) else MapForecast.from_dict(content, str(path))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: {type(error).__name__} {error}; {expected}") from error


def shipped() -> MapForecast | None:
    """Returns the forecast that comes with the package; None if it has none."""
    return read_map(epath.Path(SHIPPED)) if SHIPPED.exists() else None


def write_forecast(path: epath.Path, forecast: MapForecast) -> None:
    """Writes a fitted forecast."""
    write_text(path, json.dumps(forecast.to_dict(), separators=(",", ":")) + "\n")
