"""OTA with Fast Fisher Grafting equals its equations, and keeps what counts by curvature."""

import numpy as np
import pytest

from merit_jax.core import tree
from merit_jax.merging import MERGERS
from tests.support import papers, small_models

COUNT = 3


def merged(**options):
    found = MERGERS["ota_ffg"](
        small_models.theta0(),
        small_models.branches(),
        small_models.WEIGHTS,
        statistics=small_models.fishers(),
        **options,
    )
    return tree.flatten(found)


def parts(path):
    """theta0's parameter, the task vectors and the second moments, in float64."""
    base = tree.flatten(small_models.theta0())[path].astype(np.float64)
    taus = [tree.flatten(theta)[path] - base for theta in small_models.branches()]
    return base, taus, [tree.flatten(moment)[path].astype(np.float64) for moment in small_models.fishers()]


def largest(saliencies, density):
    """The saliency of the last entry that is kept, less what float32 rounds away."""
    ordered = np.sort(saliencies)[::-1]
    return ordered[max(1, int(density * ordered.size)) - 1] * (1 - 1e-5)


def test_the_whole_task_vector_is_ranked_together_by_default():
    paths = sorted(tree.flatten(small_models.theta0()))
    known = {path: parts(path) for path in paths}
    whole = [
        np.concatenate([(moments[k] * taus[k] ** 2).ravel() for _, taus, moments in known.values()]) for k in range(3)
    ]
    thresholds = [largest(saliency, 0.3) for saliency in whole]
    for path, leaf in merged(density=0.3).items():
        base, taus, moments = known[path]
        np.testing.assert_allclose(leaf, base + papers.ota_ffg(taus, moments, thresholds), atol=2e-6, err_msg=path)


def test_each_layers_tensor_is_ranked_by_itself_where_asked():
    for path, leaf in merged(density=0.3, trim_scope="tensor").items():
        base, taus, moments = parts(path)
        layers = range(small_models.LAYERS) if path in small_models.STACKED else [...]
        for layer in layers:
            own = [tau[layer] for tau in taus], [moment[layer] for moment in moments]
            thresholds = [largest((moment * tau**2).ravel(), 0.3) for tau, moment in zip(*own, strict=True)]
            expected = base[layer] + papers.ota_ffg(*own, thresholds)
            np.testing.assert_allclose(leaf[layer], expected, atol=2e-6, err_msg=path)


def by_hand(taus, moments, **options):
    base = small_models.kernel(np.zeros_like(taus[0]))
    thetas, known = [small_models.kernel(tau) for tau in taus], [small_models.kernel(moment) for moment in moments]
    found = MERGERS["ota_ffg"](base, thetas, [1 / len(taus)] * len(taus), statistics=known, **options)
    return found["a"]["kernel"]


def test_a_small_move_where_the_loss_is_steep_is_kept_before_a_large_one_where_it_is_flat():
    found = by_hand([np.array([[0.1, 1.0]])], [np.array([[1e4, 1e-4]])], density=0.5)
    np.testing.assert_allclose(found, [[0.1, 0.0]], rtol=1e-6)


def test_branches_count_by_the_root_of_their_curvature():
    found = by_hand([np.array([[1.0]]), np.array([[0.0]])], [np.array([[9.0]]), np.array([[1.0]])], density=1.0)
    np.testing.assert_allclose(found, [[0.75]], rtol=1e-6)


def test_the_scale_of_the_loss_makes_no_difference():
    """Also where squares of moves times second moments are far below the smallest float32."""
    taus, moments = zip(*[(parts("head/kernel")[1][k], parts("head/kernel")[2][k]) for k in range(COUNT)], strict=True)
    small = by_hand([1e-5 * tau for tau in taus], [1e-24 * moment for moment in moments])
    np.testing.assert_allclose(small, 1e-5 * by_hand(taus, moments), rtol=1e-4)
    assert np.any(small)


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_the_order_of_branches_makes_no_difference(scope):
    _, taus, moments = parts("head/kernel")
    found = by_hand(taus, moments, trim_scope=scope)
    np.testing.assert_allclose(by_hand(taus[::-1], moments[::-1], trim_scope=scope), found, rtol=1e-5)


def test_without_any_curvature_branches_count_alike():
    taus = [np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])]
    np.testing.assert_allclose(by_hand(taus, [np.zeros((1, 2))] * 2, density=1.0), [[2.0, 3.0]], rtol=1e-6)
