"""The evaluated models of a run: their names, looks, and scores with errors."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.comparison.statistics import standard_error
from merit_jax.evaluation.suites import mean_accuracy, split_suites
from merit_jax.reporting.figures import Number
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.theme import Colour, look
from merit_jax.workdir.paths import MERGED, THETA0


class Score(NamedTuple):
    """A mean accuracy in per cent and its standard error, at most."""

    value: Number
    error: Number


def style(artifacts: Artifacts, name: str) -> tuple[Colour, str]:
    """Returns (colour, shape) of a model in the report."""
    return model_look(name, [*artifacts.models, *((artifacts.frontier or {}).get("models", {}))])


def model_look(name: str, known: Iterable[str]) -> tuple[Colour, str]:
    """Returns (colour, shape) of a model: theta0 a black star, the merged model blue, the others in their order.

    Args:
        name: The model.
        known: All models of the run, in order.

    Examples:
        >>> model_look("joint", ["theta0", "joint", "merged"])
        (1, 'square')
    """
    if name == THETA0:
        return "ink", "star"
    if name == MERGED:
        return look(0)
    others = list(dict.fromkeys(other for other in known if other not in (THETA0, MERGED)))
    return look(1 + others.index(name)) if name in others else ("muted", "circle")


def called(artifacts: Artifacts, name: str) -> str:
    """Returns the name of a model in the report."""
    method = artifacts.config["method"] if artifacts.config else ""
    known = {MERGED: f"merged ({method})" if method else MERGED}
    method, _, overrides = name.partition(":")
    keys = ", ".join(override.partition(".")[2] or override for override in overrides.split(","))
    return known.get(name, f"{method} ({keys})" if overrides else method)


def part_of(artifacts: Artifacts) -> str:
    """Returns the kind of the evaluation's parts: "suites" where there are some, else "datasets"."""
    return "suites" if all("suites" in model for model in artifacts.models.values()) else "datasets"


def means(artifacts: Artifacts) -> dict[str, dict[str, Score]]:
    """Returns kind of mean -> model -> score: over all parts and, where suites are of two kinds, over each kind."""
    part = part_of(artifacts)
    parts = next(iter(artifacts.models.values())).get(part, {})
    old, new = split_suites(list(parts), artifacts.retained)
    kinds = {f"mean of {len(parts)} {part}": list(parts)}
    if part == "suites" and old and len(old) < len(parts):
        kinds |= {f"retained: {', '.join(old)}": old, f"skill: {', '.join(new)}": new}
    return {
        title: {model: score_of([entry[part][name] for name in names]) for model, entry in artifacts.models.items()}
        for title, names in kinds.items()
        if names
    }


def score_of(scores: list[Mapping[str, Any]]) -> Score:
    """Returns the mean over sets of records, each counting once."""
    return Score(100 * mean_accuracy([s["accuracy"] for s in scores]), 100 * standard_error(scores))


def floats(values: Sequence[Number | None]) -> list[float]:
    """Returns numbers of an artifact, NaN for null.

    Examples:
        >>> floats([1, None, 2.5])
        [1.0, nan, 2.5]
    """
    return [float("nan") if value is None else float(value) for value in values]


def text(value: Number | None, decimals: int = 3) -> str:
    """Returns a number of an artifact with so many decimals."""
    return "not finite" if value is None else f"{value:.{decimals}f}"
