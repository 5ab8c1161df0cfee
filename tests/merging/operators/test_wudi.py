"""WUDI's least interference: shared inputs are shared out, separate ones are left alone, and damping bounds the rest."""

import numpy as np
import pytest

from merit_jax.merging import MERGERS
from tests.support import small_models

BOTH = ("wudi", "optmerge")


def merged(taus, name="wudi", **options):
    """The merged task vector of task vectors [in, out]."""
    base = small_models.kernel(np.zeros_like(taus[0]))
    thetas = [small_models.kernel(tau) for tau in taus]
    return MERGERS[name](base, thetas, [1 / len(taus)] * len(taus), **options)["a"]["kernel"]


def interference(merged, taus):
    """The paper's objective, with task vectors [in, out]."""
    return sum(np.linalg.norm(tau.T @ (merged - tau)) ** 2 / np.linalg.norm(tau) ** 2 for tau in taus)


def noise(count=3, shape=(5, 8), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(count)]


def test_on_one_shared_input_the_branches_meet_in_the_middle():
    """The interference of each is divided by its norm, so that a larger task vector has no more say than a smaller one."""
    first, second = np.zeros((2, 3)), np.zeros((2, 3))
    first[0], second[0] = [4.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    np.testing.assert_allclose(merged([first, second], damping=0)[0], [2.0, 0.5, 0.0], atol=1e-5)


def test_nothing_has_less_interference_than_the_undamped_result():
    taus = noise()
    found = merged(taus, damping=0)
    least, rng = interference(found, taus), np.random.default_rng(1)
    for size in (1e-2, 1.0):
        for other in (found + size * rng.normal(size=found.shape), found * (1 + size)):
            assert interference(other, taus) > least
    assert least < interference(sum(taus) / 3, taus) < interference(sum(taus), taus)


def test_steps_of_gradient_descent_come_to_the_undamped_result():
    taus = [np.float64(tau) for tau in noise()]
    grams = [tau @ tau.T / np.linalg.norm(tau) ** 2 for tau in taus]
    tau = sum(taus)
    for _ in range(2000):
        tau = tau - 0.5 * sum(gram @ (tau - target) for gram, target in zip(grams, taus, strict=True))
    np.testing.assert_allclose(merged(noise(), damping=0), tau, atol=1e-4)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("start", "expected"), [("sum", sum(noise())), ("mean", sum(noise()) / 3)])
def test_with_much_damping_the_result_is_the_start(name, start, expected):
    np.testing.assert_allclose(merged(noise(), name, start=start, damping=1e7), expected, rtol=1e-4, atol=1e-5)


def test_damping_bounds_what_nearly_parallel_task_vectors_make_of_their_difference():
    """Undamped, an input that hardly occurs gets a weight beyond those of all branches together."""
    common = np.outer([1.0, 0.0], [1.0, 0.0])
    own = np.array([[[0.0, 0.0], [1e-2, 1e-2]], [[0.0, 1.0], [-1e-2, 1e-2]]])
    taus = list(common + own)
    whole = sum(np.linalg.norm(tau) for tau in taus)
    assert np.linalg.norm(merged(taus, damping=0)) > 3 * whole
    assert np.linalg.norm(merged(taus)) < whole


@pytest.mark.parametrize("name", BOTH)
def test_the_order_of_branches_makes_no_difference(name):
    taus = noise()
    np.testing.assert_allclose(merged(taus, name), merged(taus[::-1], name), atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_the_scale_of_the_task_vectors_makes_no_difference(name):
    """Adam's fixed rate makes one; damping in units of the mean eigenvalue does not."""
    small = [1e-3 * tau for tau in noise()]
    np.testing.assert_allclose(merged(small, name) * 1e3, merged(noise(), name), rtol=1e-3, atol=1e-4)


def test_equal_branches_come_back_undamped():
    tau = noise(1)[0]
    np.testing.assert_allclose(merged([tau] * 3, damping=0), tau, atol=1e-4)


def test_optmerge_weights_and_keeps_the_leading_directions_alone():
    """By hand: each keeps two directions of its own, and of its difference from the mean the two largest."""
    first, second = np.diag([4.0, 3.0, 0.1, 0.0]), np.diag([0.0, 0.0, 3.0, 4.0])
    found = merged([first, second], "optmerge", damping=0)
    np.testing.assert_allclose(np.diag(found), [4.0, 3.0 / 2, 3.1 / 2, 4.0], atol=1e-5)


def test_a_matrix_with_fewer_singular_values_than_branches_is_averaged_by_optmerge():
    taus = [np.full((2, 5), float(k)) for k in range(3)]
    np.testing.assert_allclose(merged(taus, "optmerge"), 1.0, rtol=1e-6)
