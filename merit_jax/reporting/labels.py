"""The evaluated models of a run: how they are called and drawn, and their scores with errors."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from merit_jax.comparison.statistics import standard_error
from merit_jax.reporting.figures import Number
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.theme import Colour, look
from merit_jax.workdir.paths import MERGED, THETA0


class Score(NamedTuple):
    """A mean accuracy in per cent and its standard error, at most."""

    value: Number
    error: Number


def style(artifacts: Artifacts, name: str) -> tuple[Colour, str]:
    """(colour, shape) of a model: theta0 a black star, the merged model blue, the others in their order."""
    if name == THETA0:
        return "ink", "star"
    if name == MERGED:
        return look(0)
    known = [*artifacts.models, *((artifacts.frontier or {}).get("models", {}))]
    others = list(dict.fromkeys(other for other in known if other not in (THETA0, MERGED)))
    return look(1 + others.index(name)) if name in others else ("muted", "circle")


def called(artifacts: Artifacts, name: str) -> str:
    """What a model is called in the report."""
    method = artifacts.config["method"] if artifacts.config else ""
    known = {MERGED: f"merged ({method})" if method else MERGED}
    method, _, overrides = name.partition(":")
    keys = ", ".join(override.partition(".")[2] or override for override in overrides.split(","))
    return known.get(name, f"{method} ({keys})" if overrides else method)


def part_of(artifacts: Artifacts) -> str:
    """What the models were asked: "suites" where there are some, else "datasets"."""
    return "suites" if all("suites" in model for model in artifacts.models.values()) else "datasets"


def means(artifacts: Artifacts) -> dict[str, dict[str, Score]]:
    """Kind of mean -> model -> score: over everything asked and, where suites are of two kinds, over each."""
    part = part_of(artifacts)
    asked = next(iter(artifacts.models.values())).get(part, {})
    old = [name for name in asked if any(fnmatchcase(name, pattern) for pattern in artifacts.retained)]
    kinds = {f"mean of {len(asked)} {part}": list(asked)}
    if part == "suites" and old and len(old) < len(asked):
        new = [name for name in asked if name not in old]
        kinds |= {f"retained: {', '.join(old)}": old, f"skill: {', '.join(new)}": new}
    return {
        title: {model: score_of([entry[part][name] for name in names]) for model, entry in artifacts.models.items()}
        for title, names in kinds.items()
        if names
    }


def score_of(scores: list[Mapping[str, Any]]) -> Score:
    """Mean over sets of records, each counting once."""
    return Score(100 * sum(s["accuracy"] for s in scores) / len(scores), 100 * standard_error(scores))


def floats(values: Sequence[Number | None]) -> list[float]:
    """The numbers, NaN for null."""
    return [float("nan") if value is None else float(value) for value in values]


def text(value: Number | None, decimals: int = 3) -> str:
    """A number with so many decimals."""
    return "not finite" if value is None else f"{value:.{decimals}f}"
