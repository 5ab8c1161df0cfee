"""Every operator equals its paper's equations in numpy, entry by entry on vectors and layer by layer on matrices."""

import jax
import numpy as np
import pytest

from merit_jax.core import tree
from merit_jax.merging import MERGERS
from tests.support import papers, small_models

W = np.array(small_models.WEIGHTS)
ONES = np.ones(3)
DEFAULT_SCALE = 0.4


def vectors(path: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """theta0's parameter and the task vectors, in float64."""
    base = tree.flatten(small_models.theta0())[path].astype(np.float64)
    return base, [tree.flatten(theta)[path] - base for theta in small_models.branches()]


def merged(name: str, **options) -> dict[str, np.ndarray]:
    given = {"statistics": small_models.statistics(name)}
    return tree.flatten(
        MERGERS[name](small_models.theta0(), small_models.branches(), small_models.WEIGHTS, **given, **options)
    )


def layers(path: str) -> list:
    """Indices of the layers of a parameter; of one that is no stack, the whole."""
    return list(range(small_models.LAYERS)) if path in small_models.STACKED else [...]


ON_MATRICES = {
    "star": (lambda taus, eta: sum(w * papers.star(tau, eta) for w, tau in zip(W, taus, strict=True)), {"eta": 0.6}),
    "tsv_m": (lambda taus, scale: scale * papers.tsv_m(taus), {"scale": 0.7}),
    "iso_c": (lambda taus, scale: scale * papers.iso_c(taus), {"scale": 0.7}),
    "iso_cts": (
        lambda taus, scale, common_fraction: scale * papers.iso_cts(taus, common_fraction),
        {"scale": 0.7, "common_fraction": 0.4},
    ),
    "wudi": (
        lambda taus, scale, damping, start: scale * papers.wudi(taus, damping, start),
        {"scale": 0.7, "damping": 0.02, "start": "sum"},
    ),
    "optmerge": (
        lambda taus, scale, damping, start: scale * papers.optmerge(taus, damping, start),
        {"scale": 0.7, "damping": 0.3, "start": "mean"},
    ),
}


@pytest.mark.parametrize("name", ON_MATRICES)
def test_matrix_methods_equal_the_paper_layer_by_layer(name):
    equation, options = ON_MATRICES[name]
    found = merged(name, **options)
    for path in ("stack/kernel", "head/kernel"):
        base, taus = vectors(path)
        for layer in layers(path):
            expected = base[layer] + equation([tau[layer].T for tau in taus], **options).T
            np.testing.assert_allclose(found[path][layer], expected, atol=5e-6)


@pytest.mark.parametrize("name", ON_MATRICES)
def test_a_matrix_is_merged_alike_in_both_layouts(name):
    base, *branches = (_Transposed(params) for params in (small_models.theta0(), *small_models.branches()))
    merge = MERGERS[name].prepare(
        base, branches, small_models.WEIGHTS, ON_MATRICES[name][1], linear_maps=lambda *_: "out_in"
    )
    np.testing.assert_allclose(merge.value("head").T, merged(name, **ON_MATRICES[name][1])["head/kernel"], atol=5e-6)


class _Transposed:
    """The unstacked matrix of a model, stored [out, in]."""

    def __init__(self, params):
        self.leaf = tree.flatten(params)["head/kernel"].T

    def paths(self):
        return {"head": jax.ShapeDtypeStruct(self.leaf.shape, self.leaf.dtype)}

    def read(self, path):
        return self.leaf


@pytest.mark.parametrize("name", ON_MATRICES)
def test_matrix_methods_average_vectors_by_tokens_and_scale_them_alike(name):
    found = merged(name, **ON_MATRICES[name][1])
    scale = ON_MATRICES[name][1].get("scale", 1)
    for path in ("embed/embedding", "norm/scale", "bias/bias"):
        base, taus = vectors(path)
        expected = base + scale * sum(w * tau for w, tau in zip(W, taus, strict=True))
        np.testing.assert_allclose(found[path], expected, atol=1e-6)


def test_task_arithmetic_adds_scaled_task_vectors():
    for path, leaf in merged("task_arithmetic").items():
        base, taus = vectors(path)
        np.testing.assert_allclose(leaf, base + DEFAULT_SCALE * sum(taus), atol=1e-6)


@pytest.mark.parametrize("election", [False, True])
@pytest.mark.parametrize("mean", [False, True])
def test_ties_trims_each_layers_tensor_by_default_and_equals_the_paper(election, mean):
    options = {"scale": 0.8, "density": 0.4, "weighted_election": election, "weighted_mean": mean}
    for path, leaf in merged("ties", **options).items():
        base, taus = vectors(path)
        for layer in layers(path):
            trimmed = [papers.top(tau[layer], 0.4) for tau in taus]
            voted = papers.consensus(trimmed, W if election else ONES, W if mean else ONES)
            np.testing.assert_allclose(leaf[layer], base[layer] + 0.8 * voted, atol=1e-6, err_msg=path)


def test_ties_trims_whole_task_vectors_where_asked():
    found, paths = merged("ties", density=0.3, trim_scope="global"), sorted(tree.flatten(small_models.theta0()))
    bases, taus = zip(*[vectors(path) for path in paths], strict=True)
    flat = [papers.top(np.concatenate([tau[k].ravel() for tau in taus]), 0.3) for k in range(3)]
    expected = np.concatenate([base.ravel() for base in bases]) + papers.consensus(flat, ONES, ONES)
    np.testing.assert_allclose(np.concatenate([found[path].ravel() for path in paths]), expected, atol=1e-6)


def test_ties_leaves_an_entry_alone_whose_masses_cancel():
    theta0 = small_models.kernel([[1.0, 1.0]])
    thetas = [small_models.kernel([[1.5, 1.5]]), small_models.kernel([[0.5, 1.25]])]
    found = MERGERS["ties"](theta0, thetas, [0.5, 0.5], density=1.0)["a"]["kernel"]
    np.testing.assert_array_equal(found, [[1.0, 1.375]])


def test_dare_keeps_the_expected_share_and_the_expected_value():
    size, tau = (400, 500), 0.25
    theta0, theta = small_models.kernel(np.ones(size)), small_models.kernel(np.full(size, 1 + tau))
    found = MERGERS["dare_linear"](theta0, [theta], [1.0], drop_rate=0.75)["a"]["kernel"] - 1
    assert set(np.unique(found)) == {np.float32(0), np.float32(tau / 0.25)}
    assert (found != 0).mean() == pytest.approx(0.25, abs=0.005)
    assert found.mean() == pytest.approx(tau, abs=0.005)


def kept(k: int, count: int, path: str = "a", **options) -> np.ndarray:
    """Which entries of branch k survive in a merge of several."""
    shape = (6, 8)
    theta0 = {path: {"kernel": np.zeros(shape, np.float32)}}
    thetas = [{path: {"kernel": np.full(shape, np.float32(i == k))}} for i in range(count)]
    return MERGERS["dare_linear"](theta0, thetas, [1 / count] * count, drop_rate=0.5, **options)[path]["kernel"] != 0


def test_dare_drops_by_seed_name_and_branch_and_nothing_else():
    first = kept(0, 1)
    np.testing.assert_array_equal(first, kept(0, 4))
    np.testing.assert_array_equal(first, kept(0, 1, seed=0))
    for other in (kept(0, 1, seed=1), kept(1, 2), kept(0, 1, path="b")):
        assert (first != other).any()


def test_dare_ties_votes_on_what_dare_keeps():
    options = {"drop_rate": 0.4, "seed": 3}
    found = merged("dare_ties", scale=0.5, weighted_mean=True, **options)
    for path, leaf in found.items():
        base, taus = vectors(path)
        alone = [
            tree.flatten(
                MERGERS["dare_linear"](
                    small_models.theta0(), small_models.branches()[: k + 1], [0.0] * k + [1.0], **options
                )
            )
            for k in range(3)
        ]
        dropped = [
            np.where(single[path] != np.float32(base), tau / 0.6, 0) for single, tau in zip(alone, taus, strict=True)
        ]
        np.testing.assert_allclose(leaf, base + 0.5 * papers.consensus(dropped, ONES, W), atol=2e-6)


def test_model_stock_equals_the_paper_for_each_layers_tensor():
    for path, leaf in merged("model_stock").items():
        base, taus = vectors(path)
        for layer in layers(path):
            expected = base[layer] + papers.model_stock([tau[layer] for tau in taus])
            np.testing.assert_allclose(leaf[layer], expected, atol=1e-6, err_msg=path)


def test_model_stock_returns_to_theta0_where_branches_disagree():
    theta0 = small_models.kernel(np.ones((2, 3, 3)))
    step = np.array([1.0, 0.0])[:, None, None] + np.eye(3)
    thetas = [small_models.kernel(1 + step), small_models.kernel(1 - step)]
    np.testing.assert_array_equal(MERGERS["model_stock"](theta0, thetas, [0.5, 0.5])["a"]["kernel"], np.ones((2, 3, 3)))


def test_fisher_weights_each_entry_by_its_information():
    found, known = merged("fisher"), [tree.flatten(fisher) for fisher in small_models.fishers()]
    thetas = [tree.flatten(theta) for theta in small_models.branches()]
    for path, leaf in found.items():
        expected = papers.fisher([theta[path] for theta in thetas], W, [fisher[path] for fisher in known])
        np.testing.assert_allclose(leaf, expected, atol=1e-5)


@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_fisher_without_information_is_the_average(floor):
    nothing = [jax.tree.map(np.zeros_like, theta) for theta in small_models.branches()]
    found = MERGERS["fisher"](
        small_models.theta0(), small_models.branches(), small_models.WEIGHTS, statistics=nothing, floor=floor
    )
    average = MERGERS["token_weighted"](small_models.theta0(), small_models.branches(), small_models.WEIGHTS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, average)


def test_fishers_floor_is_relative_to_the_mean_of_each_layers_tensor():
    information = [
        small_models.kernel([[[3.0, 0.0]], [[300.0, 0.0]]]),
        small_models.kernel([[[0.0, 1.0]], [[0.0, 100.0]]]),
    ]
    thetas = [small_models.kernel(np.ones((2, 1, 2))), small_models.kernel(np.zeros((2, 1, 2)))]
    base = small_models.kernel(np.zeros((2, 1, 2)))
    found = MERGERS["fisher"](base, thetas, [0.5, 0.5], statistics=information, floor=0.5)["a"]["kernel"]
    np.testing.assert_allclose(found, [[[3 / 3.5, 0.5 / 1.5]]] * 2, rtol=1e-6)


def test_fishers_floor_is_relative_to_the_parameters_mean():
    information = [small_models.kernel([[3.0, 0.0]]), small_models.kernel([[0.0, 1.0]])]
    thetas = [small_models.kernel([[1.0, 1.0]]), small_models.kernel([[0.0, 0.0]])]
    found = MERGERS["fisher"](
        small_models.kernel(np.zeros((1, 2))), thetas, [0.5, 0.5], statistics=information, floor=0.5
    )
    np.testing.assert_allclose(found["a"]["kernel"], [[3 / 3.5, 0.5 / 1.5]], rtol=1e-6)
