"""The frontier: what a model retains against what it has learnt, as its way from theta0 is scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from merit_jax.reporting.figures import WIDTH, Axis
from merit_jax.reporting.series import Series, Span, plot
from merit_jax.reporting.theme import Colour
from merit_jax.workdir.paths import THETA0

Point = Sequence[float]
"""(scale, retained, skill) of one model at one scale; scores in 0..1."""

LABELS = "retained: suites of old skills (%)", "skill: suites that the mixture teaches (%)"
"""Of the horizontal and of the vertical axis."""

HALVES = "Scores are of the reporting half of each suite; scales are chosen on the other half."
"""Which records the points of a frontier are of."""


class Kept(NamedTuple):
    """A model's scores at the scale that is chosen for it.

    Attributes:
        scale: λ, chosen on the choosing half of the suites.
        skill: In per cent, on the reporting half.
        retained: In per cent, on the reporting half.
        share: `retained` in per cent of theta0's; NaN where that is 0.
    """

    scale: float
    skill: float
    retained: float
    share: float

    def __str__(self) -> str:
        """Returns the skill with its scale, as "37.5 at λ = 0.5"."""
        return f"{self.skill:.1f} at λ = {self.scale:g}"


def kept_scores(models: Mapping[str, Any]) -> dict[str, Kept]:
    """Returns the scores of every model at its chosen scale.

    Args:
        models: Of `frontier.json`, theta0 among them.

    Examples:
        >>> kept = {"theta0": (0.0, 0.8, 0.25), "joint": (0.5, 0.76, 0.375)}
        >>> names = ("scale", "retained", "skill")
        >>> found = kept_scores({name: {"kept": dict(zip(names, values))} for name, values in kept.items()})
        >>> str(found["joint"]), round(found["joint"].share)
        ('37.5 at λ = 0.5', 95)
    """
    base = models[THETA0]["kept"]["retained"]
    found = {}
    for name, model in models.items():
        scale, retained, skill = (model["kept"][key] for key in ("scale", "retained", "skill"))
        found[name] = Kept(scale, 100 * skill, 100 * retained, 100 * retained / base if base else float("nan"))
    return found


def scaled(label: str, points: Sequence[Point], colour: Colour, shape: str = "circle") -> Series:
    """Returns one model's line over all scales, in per cent, with a large mark where it is not scaled (λ = 1)."""
    scales, retained, skill = zip(*points, strict=True)
    x, y = ([100 * value for value in values] for values in (retained, skill))
    rows = zip(scales, x, y, strict=True)
    tips = [f"{label}, λ = {scale:g}\nretained {a:.1f} %, skill {b:.1f} %" for scale, a, b in rows]
    sizes = [6.0 if scale == 1 else 3.0 for scale in scales]
    return Series(label, x, y, tips, colour, shape, sizes, line=True)


def frontier(
    base: Point,
    lines: Sequence[Series],
    retention: float,
    *,
    axes: tuple[Axis, Axis] = (Axis(LABELS[0], low=0), Axis(LABELS[1])),
    panel: bool = False,
) -> Any:
    """Returns the chart: theta0 as a star, the lines, and in grey where too little is retained.

    Args:
        base: (0, retained, skill) of theta0.
        lines: Of `scaled`.
        retention: Share of theta0's retained score that counts as kept.
        axes: Horizontal and vertical one.
        panel: It is one of many, which are small and need no words.
    """
    x, y = (100 * value for value in base[1:])
    star = Series(
        "theta0", [x], [y], [f"theta0\nretained {x:.1f} %, skill {y:.1f} %"], "ink", "star", 6.0, listed=not panel
    )
    span = Span(0, retention * x, f"less than {100 * retention:g} % retained" if not panel else "")
    width, height = (210, 170) if panel else (WIDTH, 330)
    return plot([*lines, star], *axes, span=span, width=width, height=height)
