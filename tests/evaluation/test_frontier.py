"""The scale that is chosen, on points drawn by hand."""

import itertools

import pytest

from merit_jax.evaluation.frontier import Point, at_retention, choose_scale

FALLING = [Point(0.0, 0.8, 0.1), Point(1.0, 0.6, 0.5), Point(2.0, 0.2, 0.9)]


@pytest.mark.parametrize(
    ("retention", "scale"),
    [
        (1.0, 0),  # theta0 itself
        (0.76, 0),  # half-way from the first point to the second: only measured scales count
        (0.75, 1),  # exactly enough
        (0.3, 1),
        (0.25, 2),
        (0.0, 2),
    ],
)
def test_the_measured_scale_of_most_skill_that_retains_enough_is_chosen(retention, scale):
    assert choose_scale(FALLING, retention) == scale


def test_the_order_of_the_points_does_not_matter():
    assert {choose_scale(order, 0.75) for order in itertools.permutations(FALLING)} == {1}


def test_of_equal_skill_the_smallest_scale_is_chosen():
    third = (0.1 + 0.2) / 0.9  # another last digit than 1 / 3
    assert third != 1 / 3
    points = [Point(0.0, 0.8, 0.1), Point(0.5, 0.9, 1 / 3), Point(1.0, 0.9, third), Point(2.0, 0.9, 0.1)]
    assert choose_scale(points, 0.95) == choose_scale(points[::-1], 0.95) == 0.5


def test_rounding_errors_do_not_decide_whether_enough_is_retained():
    base = 0.1 + 0.2
    assert choose_scale([Point(0.0, base, 0.1), Point(1.0, 0.3, 0.2)], 1.0) == 1


def test_more_skill_where_too_little_is_retained_does_not_count():
    assert choose_scale([Point(0.0, 0.8, 0.3), Point(1.0, 0.9, 0.2), Point(2.0, 0.1, 0.7)], 0.95) == 0


def test_theta0_must_be_among_the_points():
    with pytest.raises(ValueError, match="theta0's point, at scale 0"):
        choose_scale(FALLING[1:], 0.9)


@pytest.mark.parametrize(
    ("retention", "point"),
    [
        (1.0, Point(0.0, 0.8, 0.1)),
        (0.875, Point(0.5, 0.7, 0.3)),  # half-way from the first to the second
        (0.75, Point(1.0, 0.6, 0.5)),
        (0.5, Point(1.5, 0.4, 0.7)),
        (0.25, Point(2.0, 0.2, 0.9)),
        (0.1, Point(2.0, 0.2, 0.9)),  # the line ends before
    ],
)
def test_the_point_of_a_retention_lies_on_the_line_between_measured_scales(retention, point):
    for order in itertools.permutations(FALLING):
        assert at_retention(order, retention) == pytest.approx(point)


def test_the_first_fall_below_a_retention_counts_and_a_rise_before_it_does_not():
    points = [Point(0.0, 0.8, 0.1), Point(0.5, 0.9, 0.2), Point(1.0, 0.5, 0.4), Point(2.0, 0.8, 0.9)]
    assert at_retention(points, 0.875) == pytest.approx(Point(0.75, 0.7, 0.3))


def test_a_line_without_theta0_is_refused():
    for of_line in (at_retention, choose_scale):
        with pytest.raises(ValueError, match="needs theta0's point"):
            of_line(FALLING[1:], 0.9)
