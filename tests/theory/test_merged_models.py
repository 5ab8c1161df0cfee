"""When all splits of a mixture end in the same merged model: one SGD step, or one Hessian; and the counter-examples.

Branches start at theta0 = 0 and step on all of their data at once; datasets are of equal size, so a group's share of the data is
its number of datasets.
"""

import numpy as np
import pytest

from merit_jax.diagnostics import hessian
from merit_jax.merging import MERGERS, token_weights
from tests.support import splits, toy

pytestmark = pytest.mark.usefixtures("x64")

TASKS, DIMENSION, ETA = 6, 5, 0.02
EQUAL = [np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 1, 0]), np.array([0, 0, 1, 1, 2, 2])]
UNEQUAL = [np.array([0, 1, 1, 1, 1, 1]), np.array([0, 0, 1, 2, 2, 2])]
OPTIMA = np.random.default_rng(0).normal(size=(TASKS, DIMENSION))
ONE = toy.random_hessian(0, DIMENSION)
EACH = np.stack([toy.random_hessian(seed, DIMENSION) for seed in range(TASKS)])
G = -np.einsum("tij,tj->ti", EACH, OPTIMA)
"""Gradients at theta0 of the datasets with Hessians of their own."""


def merged(
    H: np.ndarray, split: np.ndarray, eta: float = ETA, *, weights: list[float] | None = None, steps=1, **optimizer
) -> np.ndarray:
    """The project's merge of branches by the project's steps; `steps` of every branch, or a function of its datasets' number."""
    mixture, members = toy.Quadratic(H, OPTIMA), splits.group_members(split)
    count = steps if callable(steps) else lambda _: steps
    thetas = [
        mixture.trained(np.zeros(DIMENSION), group, eta, steps=count(len(group)), **optimizer) for group in members
    ]
    weights = token_weights([2 * len(group) for group in members]) if weights is None else weights
    return toy.vector(MERGERS["token_weighted"](toy.leaves(np.zeros(DIMENSION)), thetas, weights))


def loss(H: np.ndarray, theta: np.ndarray) -> float:
    return float(hessian.loss(toy.Quadratic(H, OPTIMA).objective(), toy.leaves(theta)))


def group_means(split: np.ndarray, values: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """(share of the data, mean over the group) of each group."""
    return [(len(group) / TASKS, values[group].mean(axis=0)) for group in splits.group_members(split)]


def test_a_mixture_has_the_hessian_of_each_dataset_it_was_given():
    mixture, v = toy.Quadratic(EACH, OPTIMA), np.arange(1.0, 6.0)
    for datasets in ([2], [0, 1, 1], None):
        found = hessian.product(mixture.objective(datasets), toy.leaves(np.zeros(DIMENSION)), toy.leaves(v))
        expected = EACH[datasets if datasets is not None else range(TASKS)].mean(axis=0) @ v
        np.testing.assert_allclose(toy.vector(found), expected, rtol=1e-10)


@pytest.mark.parametrize("split", EQUAL + UNEQUAL)
def test_one_step_of_sgd_has_one_merged_model_whatever_the_hessians(split):
    """`θ̄ = θ_0 − η ḡ`, groups of any size, merged by their shares of the data."""
    np.testing.assert_allclose(merged(EACH, split), -ETA * G.mean(axis=0), rtol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("steps", [2, 9])
@pytest.mark.parametrize("split", EQUAL + UNEQUAL)
def test_with_one_hessian_any_number_of_steps_has_one_merged_model_which_is_that_of_joint_training(
    split, steps, momentum
):
    """A branch is an affine function of its data's mean optimum, `θ_k = θ_0 + A_n (θ̄*_k − θ_0)`, with one A_n for all."""
    joint = merged(ONE, np.zeros(TASKS, np.int32), steps=steps, b1=momentum)
    np.testing.assert_allclose(merged(ONE, split, steps=steps, b1=momentum), joint, rtol=1e-10)
    if not momentum:
        affine = np.eye(DIMENSION) - np.linalg.matrix_power(np.eye(DIMENSION) - ETA * ONE, steps)
        np.testing.assert_allclose(joint, affine @ OPTIMA.mean(axis=0), rtol=1e-10)


def test_two_steps_with_hessians_of_their_own_differ_between_splits_at_second_order():
    """`θ̄ = θ_0 − 2η ḡ + η² Σ_k w_k H_k ḡ_k`, and the last term depends on who is with whom."""
    one, other = EQUAL[:2]
    for split in (*EQUAL, *UNEQUAL):
        pairs = zip(group_means(split, EACH), group_means(split, G), strict=True)
        second = sum(share * H @ g for (share, H), (_, g) in pairs)
        np.testing.assert_allclose(
            merged(EACH, split, steps=2), -2 * ETA * G.mean(axis=0) + ETA**2 * second, rtol=1e-9, atol=1e-12
        )
    apart = [
        np.linalg.norm(merged(EACH, one, eta, steps=2) - merged(EACH, other, eta, steps=2)) for eta in (ETA, ETA / 2)
    ]
    np.testing.assert_allclose(apart[0] / apart[1], 4, rtol=1e-6)
    size = np.linalg.norm(merged(EACH, one, steps=2) + 2 * ETA * G.mean(axis=0))
    assert apart[0] > 0.1 * size, "as large as the second order itself"


def test_two_steps_with_hessians_of_their_own_have_other_merged_losses_at_second_order():
    losses = [
        [loss(EACH, merged(EACH, split, eta, steps=2)) for split in EQUAL[:2]] for eta in (ETA / 8, ETA / 16, ETA / 32)
    ]
    apart = np.abs(np.diff(losses, axis=1)).ravel()
    np.testing.assert_allclose(apart[:-1] / apart[1:], 4, rtol=0.2)


def test_weights_that_are_not_the_shares_of_the_data_have_another_merged_model_at_first_order():
    """Unequal groups merged uniformly, with one Hessian and one step."""
    apart = [
        np.linalg.norm(merged(ONE, UNEQUAL[0], e, weights=[0.5, 0.5]) - merged(ONE, EQUAL[0], e)) for e in (1e-3, 5e-4)
    ]
    np.testing.assert_allclose(apart[0] / apart[1], 2, rtol=1e-9)
    g = [mean for _, mean in group_means(UNEQUAL[0], -OPTIMA @ ONE)]
    mixture = (-OPTIMA @ ONE).mean(axis=0)
    np.testing.assert_allclose(apart[0], 1e-3 * np.linalg.norm(np.mean(g, axis=0) - mixture), rtol=1e-9)


def test_more_steps_for_larger_groups_have_another_merged_model_at_first_order():
    """As in one epoch of unequal groups: `θ̄ ≈ θ_0 − η Σ_k w_k n_k ḡ_k`, with one Hessian."""
    apart = [
        np.linalg.norm(merged(ONE, UNEQUAL[0], eta, steps=lambda n: n) - merged(ONE, EQUAL[0], eta, steps=lambda n: n))
        for eta in (1e-5, 5e-6)
    ]
    np.testing.assert_allclose(apart[0] / apart[1], 2, rtol=1e-3)


def test_steps_on_a_part_of_the_data_at_a_time_have_another_merged_model_at_second_order():
    """One dataset a step, in order, equally many steps for every branch and one Hessian: the order of a group's data matters."""
    mixture = toy.Quadratic(ONE, OPTIMA)

    def visited(split: np.ndarray, eta: float) -> np.ndarray:
        thetas = []
        for group in splits.group_members(split):
            theta = np.zeros(DIMENSION)
            for dataset in group:
                theta = toy.vector(mixture.trained(theta, [dataset], eta))
            thetas.append(theta)
        return np.mean(thetas, axis=0)

    apart = [np.linalg.norm(visited(EQUAL[0], eta) - visited(EQUAL[1], eta)) for eta in (1e-3, 5e-4)]
    np.testing.assert_allclose(apart[0] / apart[1], 4, rtol=0.01)


@pytest.mark.parametrize("H", [ONE, EACH], ids=["one Hessian", "a Hessian each"])
def test_one_step_of_adam_differs_between_splits_at_first_order(H):
    """Adam's first step is `−η sign(ḡ_k)`: with one Hessian these branches cancel each other in one split and not in another."""
    gradients = -np.einsum("tij,tj->ti", np.broadcast_to(H, EACH.shape), OPTIMA)
    found = []
    for split in (EQUAL[0], np.array([0, 0, 1, 0, 1, 1])):
        expected = -sum(share * np.sign(g) for share, g in group_means(split, gradients))
        found.append(merged(H, split, 1e-3, optimizer="adam", b1=0.9, eps=1e-12))
        np.testing.assert_allclose(found[-1], 1e-3 * expected, rtol=1e-6, atol=1e-12)
        half = merged(H, split, 5e-4, optimizer="adam", b1=0.9, eps=1e-12)
        np.testing.assert_allclose(found[-1], 2 * half, rtol=1e-6, atol=1e-12)
    assert np.linalg.norm(found[0] - found[1]) > 0.3 * np.linalg.norm(found[0])
    assert abs(loss(H, found[0]) - loss(H, found[1])) > 0.05 * abs(loss(H, found[0]) - loss(H, np.zeros(DIMENSION)))
