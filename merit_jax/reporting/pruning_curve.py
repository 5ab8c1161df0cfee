"""Quality of a pruned model against the share of heads that is removed, by criterion, before and after recovery."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.reporting.figures import Number
from merit_jax.workdir.pruning_files import WHOLE
from merit_jax.workdir.pruning_results import Scored

LABELS = {
    "hies": "HIES",
    "importance": "importance (HIS)",
    "entropy": "entropy (AE)",
    "magnitude": "magnitude",
    "random": "random",
}
"""Criterion -> its name in tables and figures."""


class Quality(NamedTuple):
    """A number by which models are compared.

    Attributes:
        name: Of its figures.
        label: The quantity, with its unit.
        records: What it is a mean over.
        decimals: With which it is written.
        high: More is better.
        of: Reads it from the entry of a model.
    """

    name: str
    label: str
    records: str
    decimals: int
    high: bool
    of: Callable[[Mapping[str, Any]], Number]

    def written(self, value: Number) -> str:
        """Returns a value as it is written in tables."""
        return f"{value:.{self.decimals}f}"


class CurvePoint(NamedTuple):
    """A criterion at a ratio.

    Attributes:
        ratio: Share of heads that was asked for.
        removed: Share that was removed, on the mean over the draws.
        values: Quality of each draw, one unless the criterion is "random".
    """

    ratio: float
    removed: float
    values: Sequence[Number]

    @property
    def mean(self) -> Number:
        """The mean over the draws."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> Number | None:
        """The standard deviation over the draws, n − 1 in the denominator; None of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def written(self, quality: Quality) -> str:
        """Returns the mean as it is written in tables, with the deviation where there is one."""
        spread = "" if self.deviation is None else f"\u00a0±\u00a0{quality.written(self.deviation)}"
        return quality.written(self.mean) + spread


Curves = Mapping[tuple[str, bool], Sequence[CurvePoint]]
"""(criterion, whether it is trained again) -> its points by rising ratio."""


def qualities(scored: Scored) -> list[Quality]:
    """Returns the numbers that all models have: accuracy on suites or else on held-out records, and losses."""
    models = list(scored.models.values())
    if not models:
        return []
    accuracy, loss, found = "accuracy (%)", "loss (nats per token)", []
    held_out = f"the held-out records of {len(models[0].get('datasets', ()))} datasets"
    if all("suites_mean" in model for model in models):
        half = "" if scored.half == "all" else f", {scored.half} half"
        records = f"{len(models[0]['suites'])} suites{half}"
        found.append(
            Quality("accuracy", accuracy, records, 1, True, lambda model: 100 * model["suites_mean"]["accuracy"])
        )
    elif all("mean" in model for model in models):
        found.append(Quality("accuracy", accuracy, held_out, 1, True, lambda model: 100 * model["mean"]["accuracy"]))
    if all("loss" in model.get("mean", {}) for model in models):
        found.append(Quality("loss", loss, held_out, 3, False, lambda model: model["mean"]["loss"]))
    if all(model.get("mixture_loss") is not None for model in models):
        records = "training examples of the mixture"
        found.append(Quality("mixture_loss", loss, records, 3, False, lambda model: model["mixture_loss"]))
    return found


def curves(scored: Scored, quality: Quality) -> Curves:
    """Returns the points of every criterion.

    Args:
        scored: The whole model, and those of the curves.
        quality: The number to compare by.
    """
    found: dict[tuple[str, bool], dict[float, list[tuple[float, Number]]]] = {}
    for name, model in scored.models.items():
        if name == WHOLE:
            continue
        made = model["inputs"]["pruning"]
        points = found.setdefault((made["criterion"], "recovery" in model["inputs"]), {})
        points.setdefault(made["ratio"], []).append((made["removed"], quality.of(model)))
    order = [key for recovered in (False, True) for name in LABELS if (key := (name, recovered)) in found]
    return {key: [_point(ratio, draws) for ratio, draws in sorted(found[key].items())] for key in order}


def _point(ratio: float, draws: Sequence[tuple[float, Number]]) -> CurvePoint:
    removed, values = zip(*draws, strict=True)
    return CurvePoint(ratio, statistics.fmean(removed), values)


def removed_at(found: Curves, ratio: float) -> str:
    """Returns the share of heads that was removed at a ratio, in per cent, with the ratio where they differ."""
    shares = [f"{100 * point.removed:.1f}" for points in found.values() for point in points if point.ratio == ratio]
    low, high = min(shares, key=float), max(shares, key=float)
    text = f"{low} %" if low == high else f"{low} to {high} %"
    return text if text == f"{100 * ratio:.1f} %" else f"{text} (ratio {ratio:g})"


def ratios(found: Curves) -> list[float]:
    """Returns the ratios, rising."""
    return sorted({point.ratio for points in found.values() for point in points})
