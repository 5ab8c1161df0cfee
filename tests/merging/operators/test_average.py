"""Averages equal numpy's weighted mean, keep what branches agree on to the bit, and refuse what cannot be merged."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from merit_jax.core import tree
from merit_jax.core.registry import lookup
from merit_jax.merging import MERGERS, token_weights


def params(seed: int, dtype=np.float32) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "layer": {"kernel": rng.standard_normal((5, 7)).astype(dtype)},
        "scale": rng.standard_normal(3).astype(dtype),
    }


WEIGHTS = [0.5, 0.3, 0.2]


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(("name", "weights"), [("token_weighted", WEIGHTS), ("uniform", [1 / 3] * 3)])
def test_averages_are_numpys_weighted_mean(name, weights, place):
    theta0, thetas = jax.tree.map(place, params(0)), [jax.tree.map(place, params(k)) for k in (1, 2, 3)]
    merged = MERGERS[name](theta0, thetas, WEIGHTS)
    for path, leaf in tree.flatten(merged).items():
        expected = np.average([np.float64(tree.flatten(theta)[path]) for theta in thetas], axis=0, weights=weights)
        assert leaf.dtype == np.float32
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-6)


def test_bfloat16_is_averaged_in_float32_and_rounded_once():
    thetas = [params(k, ml_dtypes.bfloat16) for k in range(8)]
    merged = MERGERS["token_weighted"](thetas[0], thetas, [1 / 8] * 8)["layer"]["kernel"]
    exact = np.mean([theta["layer"]["kernel"].astype(np.float64) for theta in thetas], axis=0)
    np.testing.assert_array_equal(merged, exact.astype(np.float32).astype(ml_dtypes.bfloat16))


def test_sharded_parameters_stay_sharded():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    thetas = [{"w": jax.device_put(jnp.arange(16.0) * k, sharding)} for k in range(3)]
    merged = MERGERS["token_weighted"](thetas[0], thetas, WEIGHTS)["w"]
    assert merged.sharding.is_equivalent_to(sharding, 1)
    np.testing.assert_allclose(merged, np.arange(16.0) * 0.7, rtol=1e-6)


floats = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, 6, elements=floats), st.integers(1, 5), st.sampled_from([np.float32, ml_dtypes.bfloat16]))
def test_what_the_branches_agree_on_is_kept_to_the_bit(leaf, branches, dtype):
    leaf = leaf.astype(dtype)
    weights = token_weights([3 + 7 * k for k in range(branches)])
    for name in ("token_weighted", "uniform"):
        merged = MERGERS[name]({"w": np.zeros_like(leaf)}, [{"w": leaf}] * branches, weights)["w"]
        assert merged.tobytes() == leaf.tobytes()


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(4)), st.lists(st.integers(1, 10**9), min_size=4, max_size=4))
def test_the_order_of_the_branches_does_not_matter(order, tokens):
    thetas, weights = [params(k) for k in range(4)], token_weights(tokens)
    merged = MERGERS["token_weighted"](params(9), thetas, weights)
    permuted = MERGERS["token_weighted"](params(9), [thetas[k] for k in order], weights[list(order)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, permuted)


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0])
def test_interpolation_lies_on_the_line_from_theta0(scale):
    theta0, theta = params(0), params(1)
    merged = MERGERS["interpolate"](theta0, [theta], [1.0], scale=scale)
    expected = jax.tree.map(lambda a, b: a + np.float32(scale) * (b - a), theta0, theta)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, expected)


@pytest.mark.parametrize(("scale", "end"), [(0.0, 0), (1.0, 1)])
def test_interpolation_is_exact_at_both_ends(scale, end):
    ends = params(0), params(1)
    merged = MERGERS["interpolate"](ends[0], [ends[1]], [1.0], scale=scale)
    jax.tree.map(np.testing.assert_array_equal, merged, ends[end])


def test_token_weights_are_the_exact_fractions():
    np.testing.assert_array_equal(token_weights([1, 3]), [0.25, 0.75])
    assert token_weights([2**60 + 1, 2**60 - 1]).sum() == 1
    for counts in ([], [5, 0], [5, -1]):
        with pytest.raises(ValueError, match="at least one token"):
            token_weights(counts)


def test_integers_are_kept_where_equal_and_refused_where_not():
    theta0 = {"step": np.array([3, 4])}
    np.testing.assert_array_equal(MERGERS["uniform"](theta0, [theta0] * 2, [0.5, 0.5])["step"], [3, 4])
    with pytest.raises(ValueError, match="step: int64 cannot be averaged, and branch 1 differs"):
        MERGERS["uniform"](theta0, [theta0, {"step": np.array([3, 5])}], [0.5, 0.5])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.4], r"must sum to one; \(0.5, 0.4\) sum to 0.9"),
        ([1.5, -0.5], "not negative"),
        ([np.nan, 1.0], "finite"),
        ([1.0], "1 weights for 2 branches"),
        ([0.5, 0.5 + 2e-6], "must sum to one"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        MERGERS["token_weighted"](params(0), [params(1), params(2)], weights)


def with_leaf(leaf) -> dict:
    return {**params(2), "layer": {"kernel": leaf}}


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        ({"layer": params(2)["layer"]}, "scale: theta0 has it, branch 1 lacks it"),
        ({**params(2), "extra": np.ones(2)}, "extra: branch 1 has it, theta0 lacks it"),
        (
            with_leaf(np.ones((7, 5), np.float32)),
            r"layer/kernel: branch 1 has float32\[7, 5\], theta0 has float32\[5, 7\]",
        ),
        (with_leaf(np.ones((5, 7), np.float16)), r"layer/kernel: branch 1 has float16\[5, 7\]"),
        (with_leaf(np.full((5, 7), np.nan, np.float32)), "layer/kernel: branch 1 holds values that are not finite"),
        (with_leaf(jnp.full((5, 7), jnp.inf)), "layer/kernel: branch 1 holds values that are not finite"),
    ],
)
def test_a_branch_that_does_not_fit_is_refused_by_name(branch, message):
    with pytest.raises(ValueError, match=message):
        MERGERS["token_weighted"](params(0), [params(1), branch], [0.5, 0.5])


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="no branches"):
        MERGERS["uniform"](params(0), [], [])
    with pytest.raises(ValueError, match=r"unknown \['scale'\], missing \[\]; uniform takes \[\]"):
        MERGERS["uniform"](params(0), [params(1)], [1.0], scale=1.0)
    with pytest.raises(ValueError, match=r"missing \['scale'\]; interpolate takes \['scale'\]"):
        MERGERS["interpolate"](params(0), [params(1)], [1.0])
    with pytest.raises(ValueError, match=r"towards one branch; got 2 branches"):
        MERGERS["interpolate"](params(0), [params(1)] * 2, [0.5, 0.5], scale=0.5)
    with pytest.raises(ValueError, match="merge option scale of interpolate: got nan; expected a finite number"):
        MERGERS["interpolate"](params(0), [params(1)], [1.0], scale=float("nan"))
    with pytest.raises(ValueError, match=r"unknown merge.method 'mean'; known: interpolate, token_weighted, uniform"):
        lookup({name: MERGERS[name] for name in ("token_weighted", "uniform", "interpolate")}, "mean", "merge.method")
