"""Chooses the scale of a task vector by the trade-off between retained and new skills, and finds it between scales."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

DIGITS = 9
"""Decimals of a score that count; rounding errors must not decide between scales."""


class Point(NamedTuple):
    """Scores of `θ0 + λ (θ − θ0)`.

    Attributes:
        scale: λ.
        retained: Mean accuracy on the suites of theta0's own skills.
        skill: Mean accuracy on the suites of the mixture's skills.
    """

    scale: float
    retained: float
    skill: float


def choose_scale(points: Sequence[Point], retention: float) -> float:
    """Returns the measured scale of most skill among those that retain enough; of equals, the smallest.

    Args:
        points: Scores on the choosing half of the suites, theta0's (λ = 0) among them.
        retention: Share of theta0's retained score that is enough, 0 to 1; theta0 itself always has enough.

    Raises:
        ValueError: theta0 is not among the points.

    Examples:
        >>> points = [Point(0.0, 0.8, 0.2), Point(0.5, 0.77, 0.3), Point(1.0, 0.6, 0.6)]
        >>> choose_scale(points, retention=0.95), choose_scale(points, retention=0.97)
        (0.5, 0.0)
    """
    floor = round(retention * _theta0(points).retained, DIGITS)
    enough = [point for point in points if round(point.retained, DIGITS) >= floor]
    return min(enough, key=lambda point: (-round(point.skill, DIGITS), point.scale)).scale


def at_retention(points: Sequence[Point], retention: float) -> Point:
    """Returns the point where a task vector, as it grows from theta0, first retains no more than a share of theta0's score.

    Scores are interpolated linearly between measured scales. The retained suites' records alone say where the point lies, so that
    its skill is not one chosen for being high, and all records may be used.

    Args:
        points: Scores at measured scales, in any order, theta0's (λ = 0) among them.
        retention: Share of theta0's retained score, 0 to 1.

    Returns:
        The point; the last measured one if all retain more.

    Raises:
        ValueError: theta0 is not among the points.

    Examples:
        >>> points = [Point(0.0, 0.8, 0.2), Point(0.5, 0.8, 0.4), Point(1.0, 0.4, 0.6)]
        >>> at_retention(points, retention=0.75)
        Point(scale=0.75, retained=0.6, skill=0.5)
    """
    line = sorted(points)
    floor = retention * _theta0(line).retained
    for low, high in pairwise(line):
        if round(high.retained, DIGITS) <= round(floor, DIGITS):
            fall = low.retained - high.retained
            part = (low.retained - floor) / fall if fall > 0 else 0.0
            return Point(*(round(a + part * (b - a), DIGITS) for a, b in zip(low, high, strict=True)))
    return line[-1]


def _theta0(points: Sequence[Point]) -> Point:
    base = next((point for point in points if point.scale == 0), None)
    if base is None:
        raise ValueError("a frontier needs theta0's point, at scale 0")
    return base
