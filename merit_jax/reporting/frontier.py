"""The frontier: what a model retains against what it has learnt, as its way from theta0 is scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merit_jax.reporting.figures import WIDTH, Axis
from merit_jax.reporting.series import Series, Span, plot
from merit_jax.reporting.theme import Colour

Point = Sequence[float]
"""(scale, retained, skill) of one model at one scale; scores in 0..1."""

LABELS = "retained: suites of old skills (%)", "skill: suites that the mixture teaches (%)"
"""Of the horizontal and of the vertical axis."""


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
