"""Merging gains where the loss is not quadratic; where it is, see tests/theory."""

import jax
import numpy as np
import pytest

from merit_jax.core import tree
from merit_jax.core.loss import next_token_loss
from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.lanczos import gaussian
from merit_jax.diagnostics.merging_gain import merging_gain
from tests.support import toy

NETWORK = toy.Network()
OBJECTIVE = hessian.Objective(next_token_loss(NETWORK), {}, [NETWORK.batch(0), NETWORK.batch(1)])
WEIGHTS = np.array([0.5, 0.3, 0.2])


def branches(size: float) -> tuple[dict, list[dict]]:
    """Three branches around theta0, and their weighted mean."""
    theta0, _ = tree.split(NETWORK.params(), (".*",))
    found = [jax.tree.map(lambda x, d: x + size * d, theta0, gaussian(theta0, seed)) for seed in range(3)]
    return jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(WEIGHTS, leaves, strict=True)), *found), found


@pytest.mark.usefixtures("x64")
def test_the_losses_are_those_of_the_models_and_the_gain_their_difference():
    merged, found = branches(0.3)
    gain = merging_gain(OBJECTIVE, merged, iter(found), WEIGHTS)
    losses = [float(hessian.loss(OBJECTIVE, branch)) for branch in found]
    np.testing.assert_allclose(gain.branch_losses, losses)
    np.testing.assert_allclose(gain.merged_loss, float(hessian.loss(OBJECTIVE, merged)))
    np.testing.assert_allclose(gain.obtained, WEIGHTS @ losses - gain.merged_loss)


@pytest.mark.usefixtures("x64")
def test_the_prediction_misses_by_the_third_order():
    """Branches at a tenth of the distance: a hundredth of the gain, and a thousandth of the error."""
    near, far = (merging_gain(OBJECTIVE, *branches(size), WEIGHTS) for size in (1e-3, 1e-2))
    assert abs(near.obtained - near.predicted) < 2e-3 * abs(far.obtained - far.predicted)
    np.testing.assert_allclose(far.predicted / near.predicted, 100, rtol=0.1)


@pytest.mark.usefixtures("x64")
def test_merges_elsewhere_than_the_mean_have_a_first_order_term():
    merged, found = branches(1e-3)
    mean = merging_gain(OBJECTIVE, merged, found, WEIGHTS)
    assert abs(WEIGHTS @ mean.slopes) < 1e-12
    aside = jax.tree.map(lambda x, d: x + 1e-3 * d, merged, gaussian(merged, 9))
    gain = merging_gain(OBJECTIVE, aside, found, WEIGHTS)
    assert abs(WEIGHTS @ gain.slopes) > 10 * abs(gain.obtained - gain.predicted)
    np.testing.assert_allclose(gain.predicted, gain.obtained, rtol=0.05)


def test_weights_that_do_not_fit_the_branches_are_refused():
    leaves = toy.leaves(np.zeros(2, np.float32))
    objective = toy.Quadratic(np.eye(2), np.zeros((1, 2))).objective()
    with pytest.raises(ValueError, match=r"sum to 0.9; expected 1"):
        merging_gain(objective, leaves, [leaves, leaves], [0.5, 0.4])
    with pytest.raises(ValueError, match="got 2 branches and 1 weights"):
        merging_gain(objective, leaves, [leaves, leaves], [1.0])
