"""Skill where enough is retained, on lines drawn by hand."""

import itertools

import pytest

from merit_jax.evaluation.frontier import Point, skill_at

FALLING = [Point(0, 0.8, 0.1), Point(1, 0.6, 0.5), Point(2, 0.2, 0.9)]


@pytest.mark.parametrize(
    ("floor", "skill"),
    [
        (0.8, 0.1),  # at theta0 itself
        (0.7, 0.3),  # half-way from the first point to the second
        (0.6, 0.5),  # at a point
        (0.5, 0.6),  # a quarter from the second to the third
        (0.1, 0.9),  # everywhere
        (0.81, None),  # nowhere
    ],
)
def test_the_crossing_is_interpolated(floor, skill):
    assert skill_at(FALLING, floor) == (skill and pytest.approx(skill))


def test_the_order_of_the_points_is_that_of_their_scales():
    found = {skill_at(order, 0.5) for order in itertools.permutations(FALLING)}
    assert len(found) == 1


def test_of_several_crossings_the_one_with_most_skill_counts():
    points = [Point(0, 0.5, 0.1), Point(1, 0.3, 0.4), Point(2, 0.5, 0.2), Point(3, 0.1, 0.8)]
    assert skill_at(points, 0.4) == pytest.approx(0.35)  # 0.25 down, 0.3 up, 0.35 down
    back = [Point(0, 0.5, 0.1), Point(1, 0.3, 0.9), Point(2, 0.5, 0.2)]
    assert skill_at(back, 0.4) == pytest.approx(0.55)  # 0.5 down, 0.55 up again


def test_skill_where_too_little_is_retained_does_not_count():
    points = [Point(0, 0.8, 0.3), Point(1, 0.9, 0.2), Point(2, 0.1, 0.7)]
    assert skill_at(points, 0.85) == pytest.approx(0.25)
