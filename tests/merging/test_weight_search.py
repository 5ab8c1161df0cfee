"""The search of merge weights: what it finds, where it stays, and that stopping it changes nothing."""

import itertools
import sys

import numpy as np
import pytest

from merit_jax.merging.weight_search import SearchPoint, best_place, search_weights, weights_at

START = np.array([0.2, 0.3, 0.5])
OPTIMUM = np.array([[0.7, 0.1, 0.2], [0.1, 0.1, 0.8]])


def bowl(weights):
    """Largest, 0, at the optimum of as many rows."""
    return -float(((weights - OPTIMUM[: len(weights)]) ** 2).sum())


def points(score=bowl, start=START, count=60, **options):
    return list(itertools.islice(search_weights(score, start, **{"rows": 1, "seed": 0, **options}), count))


@pytest.mark.parametrize(("rows", "count"), [(1, 80), (2, 200)])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_found(rows, count, seed):
    found = points(count=count, rows=rows, seed=seed)
    best = found[best_place(found)]
    np.testing.assert_allclose(weights_at(best.coordinates, START), OPTIMUM[:rows], atol=0.05)
    assert best.score > 0.02 * found[0].score


def test_two_branches_have_one_coordinate():
    found = points(lambda weights: -abs(weights[0, 0] - 0.95), np.array([0.5, 0.5]), count=40)
    assert {len(point.coordinates) for point in found} == {1}
    assert weights_at(found[best_place(found)].coordinates, np.array([0.5, 0.5]))[0, 0] == pytest.approx(0.95, abs=0.02)


def test_the_search_starts_at_the_given_weights_and_stays_in_the_simplex():
    seen = []

    def score(weights):
        seen.append(weights)
        return float(weights[0, 0])

    points(score, rows=2, count=100)
    np.testing.assert_allclose(seen[0], [START, START], rtol=1e-14)
    for weights in seen:
        assert weights.shape == (2, 3)
        assert (weights > 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    assert seen[-1][0, 0] > 0.95


def test_coordinates_are_isometric_log_ratios():
    """The distance of two points is that of the centred logarithms of their weights, so that no branch is singled out."""
    one, other = np.array([0.4, -1.3]), np.array([-0.2, 0.5])
    ratio = np.log(weights_at(one, START)[0]) - np.log(weights_at(other, START)[0])
    assert np.linalg.norm(ratio - ratio.mean()) == pytest.approx(np.linalg.norm(one - other))


@pytest.mark.parametrize("stopped", [0, 1, 4, 7, 8, 20, 29])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(stopped):
    whole, scored = points(count=30), []

    def score(weights):
        scored.append(weights)
        return bowl(weights)

    assert points(score, count=30 - stopped, known=whole[:stopped]) == whole[stopped:]
    assert len(scored) == 30 - stopped


def test_another_seed_is_another_search_from_the_same_weights():
    one, other = points(count=5), points(count=5, seed=1)
    assert one[0] == other[0]
    assert all(a.coordinates != b.coordinates for a, b in zip(one[1:], other[1:], strict=True))


def test_of_equals_the_first_is_the_best():
    assert best_place([SearchPoint((float(i),), score) for i, score in enumerate((0.1, 0.5, 0.2, 0.5))]) == 1


@pytest.mark.parametrize("start", [[1.0], [0.0, 1.0]])
def test_weights_that_cannot_be_searched_are_refused(start):
    with pytest.raises(ValueError, match="needs two branches or more, of positive weights"):
        points(start=np.array(start))


def test_the_extra_is_named_where_the_library_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(ImportError, match=r"pip install 'merit-jax\[search\]'"):
        points(count=1)
