"""RegMean equals its closed form, and gives each branch's outputs on its own inputs where it can."""

import numpy as np
import pytest

from merit_jax.core import tree
from merit_jax.merging import MERGERS, TreeLeaves
from merit_jax.merging.operators.normal_equations import LEAST, solve
from tests.support import papers, small_models

KERNELS = ("stack/kernel", "head/kernel")


def merged(**options):
    found = MERGERS["regmean"](
        small_models.theta0(),
        small_models.branches(),
        small_models.WEIGHTS,
        statistics=small_models.input_grams(),
        **options,
    )
    return tree.flatten(found)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_kernels_equal_the_closed_form_layer_by_layer_and_the_rest_is_averaged(alpha):
    found = merged(alpha=alpha)
    average = tree.flatten(
        MERGERS["token_weighted"](small_models.theta0(), small_models.branches(), small_models.WEIGHTS)
    )
    thetas, grams = (
        [tree.flatten(params) for params in known] for known in (small_models.branches(), small_models.input_grams())
    )
    for path, leaf in found.items():
        if path not in KERNELS:
            np.testing.assert_allclose(leaf, average[path], atol=1e-6, err_msg=path)
            continue
        for layer in range(small_models.LAYERS) if path in small_models.STACKED else [...]:
            own = (
                [np.float64(theta[path][layer]) for theta in thetas],
                [np.float64(gram[path][layer]) for gram in grams],
            )
            np.testing.assert_allclose(leaf[layer], papers.regmean(small_models.WEIGHTS, *own, alpha), atol=5e-6)


def by_hand(kernels, grams, weights=None, **options):
    base = small_models.kernel(np.zeros_like(kernels[0]))
    thetas, known = [small_models.kernel(kernel) for kernel in kernels], [small_models.kernel(gram) for gram in grams]
    weights = weights or [1 / len(kernels)] * len(kernels)
    return MERGERS["regmean"](base, thetas, weights, statistics=known, **options)["a"]["kernel"]


def inputs(*places):
    """Inputs that use some of four places only."""
    rng = np.random.default_rng(sum(places))
    found = np.zeros((30, 4))
    found[:, list(places)] = rng.normal(size=(30, len(places)))
    return found


def test_branches_with_inputs_of_their_own_are_kept_whole_on_them():
    kernels = [np.random.default_rng(k).normal(size=(4, 5)).astype(np.float32) for k in range(2)]
    first, second = inputs(0, 1), inputs(2, 3)
    found = by_hand(kernels, [first.T @ first, second.T @ second], alpha=1.0)
    np.testing.assert_allclose(first @ found, first @ kernels[0], atol=1e-4)
    np.testing.assert_allclose(second @ found, second @ kernels[1], atol=1e-4)


def test_it_is_the_least_squares_fit_to_all_branches_outputs():
    kernels = [np.random.default_rng(k).normal(size=(4, 5)) for k in range(2)]
    first, second = inputs(0, 1, 2, 3), inputs(0, 1, 2)
    fit = np.linalg.lstsq(
        np.concatenate([first, second]), np.concatenate([first @ kernels[0], second @ kernels[1]]), rcond=None
    )[0]
    np.testing.assert_allclose(by_hand(kernels, [first.T @ first, second.T @ second], alpha=1.0), fit, atol=1e-4)


def test_an_input_that_no_branch_has_is_averaged_by_weights():
    kernels = [np.full((4, 1), 1.0), np.full((4, 1), 3.0)]
    gram = np.diag([1.0, 2.0, 3.0, 0.0])
    found = by_hand(kernels, [gram, 5 * gram], [0.75, 0.25])
    np.testing.assert_allclose(found[3], 0.75 * 1 + 0.25 * 3, rtol=1e-6)
    np.testing.assert_allclose(found[:3], (0.75 * 1 + 5 * 0.25 * 3) / (0.75 + 5 * 0.25), rtol=1e-5)


def test_the_order_of_branches_makes_no_difference():
    kernels = [np.random.default_rng(k).normal(size=(4, 5)) for k in range(3)]
    grams = [inputs(k, 3).T @ inputs(k, 3) for k in range(3)]
    found = by_hand(kernels, grams, list(small_models.WEIGHTS))
    np.testing.assert_allclose(found, by_hand(kernels[::-1], grams[::-1], list(small_models.WEIGHTS[::-1])), atol=1e-5)


def test_a_matrix_is_merged_alike_in_both_layouts():
    theta0, thetas, grams = small_models.theta0(), small_models.branches(), small_models.input_grams()
    transposed = [{"head": {"weight": params["head"]["kernel"].T}} for params in (theta0, *thetas)]
    known = [{"head": {"weight": gram["head"]["kernel"]}} for gram in grams]
    readers = [TreeLeaves(params) for params in transposed]
    merge = MERGERS["regmean"].prepare(
        readers[0],
        readers[1:],
        small_models.WEIGHTS,
        {},
        statistics=[TreeLeaves(gram) for gram in known],
        linear_maps=lambda *_: "out_in",
    )
    np.testing.assert_allclose(merge.value("head/weight").T, merged()["head/kernel"], atol=5e-6)


def test_missing_or_broken_gram_matrices_are_named():
    theta0, thetas, grams = small_models.theta0(), small_models.branches(), small_models.input_grams()
    given = {"weights": small_models.WEIGHTS}
    with pytest.raises(ValueError, match="Gram matrices of inputs of 0 branches, expected that of 3"):
        MERGERS["regmean"](theta0, thetas, **given)
    grams[1]["head"]["kernel"] = grams[1]["head"]["kernel"][:2]
    with pytest.raises(ValueError, match=r"head/kernel: the Gram .* of branch 1 has \[2, 5\], expected \[5, 5\]"):
        MERGERS["regmean"](theta0, thetas, **given, statistics=grams)
    grams = small_models.input_grams()
    grams[2]["head"]["kernel"][0, 0] = np.nan
    with pytest.raises(
        ValueError, match="head/kernel: the Gram matrices of inputs of branch 2 is not finite; take them again"
    ):
        MERGERS["regmean"](theta0, thetas, **given, statistics=grams)


def test_gram_matrices_of_few_inputs_that_rounding_made_indefinite_are_solved():
    """Of 3 inputs in 40 dimensions; in float32 their smallest eigenvalues are below zero by more than the ridge."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 40)) * 100
    gram = (x.T @ x).astype(np.float32).astype(np.float64)
    gram -= 3e-7 * np.trace(gram) / 40 * np.eye(40)
    targets = [rng.normal(size=(40, 5)) for _ in range(2)]
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(gram + LEAST * np.trace(gram) / 40 * np.eye(40))
    average = (targets[0] + targets[1]) / 2
    found = solve([gram / 2, gram / 2], targets, average)
    np.testing.assert_allclose(x @ found, x @ average, atol=1e-3)
    assert np.abs(found).max() < 10
