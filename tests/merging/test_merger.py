"""The weights that an operator says it used are those of the model that it made."""

import numpy as np
import pytest

from merit_jax.core import tree
from merit_jax.merging import MERGERS
from merit_jax.merging.options import resolve_options
from tests.support import small_models

WEIGHTS = small_models.WEIGHTS
OPTIONS = {"interpolate": {"scale": 0.3}, "task_arithmetic": {"scale": 0.5}}
THIRD = 1 / 3

EXPECTED = {
    "token_weighted": (WEIGHTS, True),
    "uniform": ((THIRD, THIRD, THIRD), True),
    "interpolate": ((0.3,), False),
    "task_arithmetic": ((0.5, 0.5, 0.5), False),
    "ties": (None, False),
    "dare_linear": (WEIGHTS, False),
    "dare_ties": (None, False),
    "star": (WEIGHTS, False),
    "tsv_m": (WEIGHTS, False),
    "iso_c": (WEIGHTS, False),
    "iso_cts": (WEIGHTS, False),
    "wudi": (WEIGHTS, False),
    "optmerge": (WEIGHTS, False),
    "model_stock": (None, False),
    "fisher": (WEIGHTS, False),
    "regmean": (WEIGHTS, False),
    "ota_ffg": (None, False),
}
"""Operator -> weights that it uses of three branches' (one's for interpolate), and whether it is their weighted mean."""


def used(name, weights=WEIGHTS, **options):
    weights = (1.0,) if name == "interpolate" else weights
    return MERGERS[name].used_weights(weights, resolve_options(MERGERS[name].leaf, OPTIONS.get(name, {}) | options))


def combination(name):
    """(task vectors [K, d], merged − theta0 [d]), float64."""
    count = 1 if name == "interpolate" else 3
    theta0, thetas = small_models.theta0(), small_models.branches(count)
    given = {"statistics": small_models.statistics(name)}
    weights = (1.0,) if name == "interpolate" else WEIGHTS
    merged = MERGERS[name](theta0, thetas, weights, **given, **OPTIONS.get(name, {}))
    flat = [np.concatenate([np.ravel(x) for x in tree.flatten(p).values()]) for p in (theta0, merged, *thetas)]
    base, end, *branches = (x.astype(np.float64) for x in flat)
    return np.stack(branches) - base, end - base


def test_every_operator_is_here():
    assert EXPECTED.keys() == MERGERS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_an_operator_says_which_weights_it_used(name):
    values, mean = used(name)
    assert values == (None if EXPECTED[name][0] is None else pytest.approx(EXPECTED[name][0]))
    assert mean == EXPECTED[name][1]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_factors_of_a_linear_operator_are_those_of_its_result_and_no_other_operator_is_linear(name):
    taus, moved = combination(name)
    if MERGERS[name].linear is not None:
        np.testing.assert_allclose(used(name).values @ taus, moved, atol=1e-6)
    else:
        best = np.linalg.lstsq(taus.T, moved, rcond=None)[0]
        assert np.linalg.norm(best @ taus - moved) > 0.05 * np.linalg.norm(moved)


def test_ties_uses_weights_where_its_options_say_so():
    assert used("ties", weighted_mean=True).values == WEIGHTS
    assert used("dare_ties", weighted_election=True).values == WEIGHTS


def test_a_sum_of_task_vectors_is_a_mean_where_the_factors_sum_to_one():
    assert used("task_arithmetic", (0.7, 0.3), scale=0.5) == ((0.5, 0.5), True)
    assert used("interpolate", scale=1.0) == ((1.0,), True)
