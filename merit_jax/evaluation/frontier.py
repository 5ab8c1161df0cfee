"""Computes the trade-off between retained and new skills as a task vector is scaled."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple


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


def skill_at(points: Sequence[Point], floor: float) -> float | None:
    """Returns the highest skill on the line through the points, in order of λ, where at least `floor` is retained.

    Args:
        points: At least one; between two, both scores are interpolated.
        floor: Least retained score.

    Returns:
        The skill; None if no part of the line is high enough.

    Examples:
        >>> points = [Point(0.0, 0.8, 0.2), Point(1.0, 0.6, 0.6)]
        >>> round(skill_at(points, floor=0.7), 6)
        0.4
        >>> skill_at(points, floor=0.9) is None
        True
    """
    points = sorted(points)
    reached = [point.skill for point in points if point.retained >= floor]
    for before, after in itertools.pairwise(points):
        if (before.retained - floor) * (after.retained - floor) < 0:
            share = (before.retained - floor) / (before.retained - after.retained)
            reached.append(before.skill + share * (after.skill - before.skill))
    return max(reached, default=None)
