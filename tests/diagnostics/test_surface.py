"""The plane through theta0, merged and branches, and the loss on it."""

import numpy as np
import pytest

from merit_jax.checkpoints.readers import TreeLeaves
from merit_jax.diagnostics.displacement import inner_products
from merit_jax.diagnostics.surface import axis_leaves, plane, surface
from tests.support import hills

THETA0 = np.array([0.5, 0.5, 0.5, 0.5])
TWO = [np.array([1.0, 0.0, 0.2, 0.5]), np.array([0.0, 1.0, 0.5, -0.3])]
FOUR = [*TWO, np.array([0.3, 0.2, -1.0, 0.5]), np.array([1.0, 1.0, 1.0, -0.2])]
BASE = TreeLeaves(hills.params(THETA0))


def readers(branches):
    return [TreeLeaves(hills.params(x)) for x in (*branches, np.mean(branches, axis=0))]


def frame(branches):
    """(plane, its axes as vectors, task vectors)."""
    found = plane(inner_products(BASE, readers(branches), ["kernel"]))
    axes = [axis_leaves(BASE, readers(branches), c, ["kernel"]) for c in found.axes]
    return found, axes, np.stack([*branches, np.mean(branches, axis=0)]) - THETA0


@pytest.mark.parametrize("branches", [TWO, FOUR])
def test_the_axes_are_orthonormal_and_the_first_points_to_the_merged_model(branches):
    found, axes, vectors = frame(branches)
    u = np.stack([axis["kernel"] for axis in axes])
    np.testing.assert_allclose(u @ u.T, np.eye(2), atol=1e-5)
    np.testing.assert_allclose(u[0], vectors[-1] / np.linalg.norm(vectors[-1]), atol=1e-5)
    np.testing.assert_allclose(found.places, vectors @ u.T, atol=1e-5)
    off = np.linalg.norm(vectors - vectors @ u.T @ u, axis=1)
    np.testing.assert_allclose(found.off, off, atol=1e-3)


def test_two_branches_lie_in_the_plane_and_the_merged_model_always_does():
    np.testing.assert_allclose(frame(TWO)[0].off, 0, atol=1e-3)
    off = frame(FOUR)[0].off
    assert off[-1] == pytest.approx(0, abs=1e-3)
    assert (off[:-1] > 0.01).any()


def test_the_second_axis_is_where_the_branches_differ_most():
    _, axes, vectors = frame(FOUR)
    first, second = (axis["kernel"].astype(np.float64) for axis in axes)
    rest = vectors[:-1] - np.outer(vectors[:-1] @ first, first)
    best = np.linalg.svd(rest)[1][0] ** 2
    assert ((rest @ second) ** 2).sum() == pytest.approx(best, rel=1e-4)


def test_the_loss_is_that_of_the_points_of_the_plane_and_covers_all_models():
    found, axes, _ = frame(FOUR)
    result = surface(
        hills.bowl_loss, hills.params(THETA0), tuple(axes), found, list("abcdm"), hills.batches(2), points=4
    )
    first, second = (axis["kernel"] for axis in axes)
    expected = [[hills.bowl(THETA0 + x * first + y * second) for x in result.x] for y in result.y]
    np.testing.assert_allclose(result.losses, expected, rtol=1e-4)
    for axis, ticks in enumerate((result.x, result.y)):
        assert ticks[0] < min(found.places[:, axis].min(), 0)
        assert ticks[-1] > max(found.places[:, axis].max(), 0)


def test_models_that_span_no_plane_are_refused():
    with pytest.raises(ValueError, match="one line through theta0"):
        frame([TWO[0], TWO[0]])
    with pytest.raises(ValueError, match="does not differ from theta0"):
        frame([THETA0, THETA0])
    found, axes, _ = frame(TWO)
    with pytest.raises(ValueError, match=r"diagnostics\.grid = 1"):
        surface(hills.bowl_loss, hills.params(THETA0), tuple(axes), found, list("abm"), hills.batches(2), points=1)
