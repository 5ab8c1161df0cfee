"""The outer step of rounds, against DiLoCo's algorithm in numpy and optax's Nesterov momentum."""

import numpy as np
import optax
import pytest
from etils import epath

from merit_jax.checkpoints.readers import OrbaxLeaves, TreeLeaves
from merit_jax.merging.outer_step import OuterStep, step_streamed

RNG = np.random.default_rng(0)
START = RNG.normal(size=(3, 4)).astype(np.float32)


def averages(rounds, start):
    """What the branches of each round come to: some way off from where it starts."""
    return [start + RNG.normal(size=start.shape).astype(np.float32) for _ in range(rounds)]


@pytest.mark.parametrize(("rate", "momentum"), [(0.7, 0.9), (1.0, 0.5), (0.5, 0.0)])
def test_several_rounds_are_those_of_nesterov_in_optax(rate, momentum):
    step, velocity, ours, theirs = OuterStep(rate, momentum), None, START, START
    optimizer = optax.sgd(rate, momentum=momentum, nesterov=True)
    state = optimizer.init(theirs)
    for merged in averages(4, START):
        ours, velocity = step.apply(ours, merged, velocity), step.velocity(ours, merged, velocity)
        updates, state = optimizer.update(theirs - merged, state)
        theirs = np.asarray(optax.apply_updates(theirs, updates))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert np.abs(ours - merged).max() > 0.1


def test_two_rounds_by_hand():
    step = OuterStep(rate=0.7, momentum=0.9)
    first, second = averages(2, START)
    gradient = START - first
    one = START - 0.7 * (gradient + 0.9 * gradient)
    velocity = 0.9 * gradient + (one - second)
    two = one - 0.7 * ((one - second) + 0.9 * velocity)
    moved = step.apply(START, first, None)
    np.testing.assert_allclose(moved, one, rtol=0, atol=1e-6)
    np.testing.assert_allclose(step.apply(moved, second, step.velocity(START, first, None)), two, rtol=0, atol=1e-5)


def test_rate_one_without_momentum_is_the_average():
    assert OuterStep().averages
    assert not OuterStep(momentum=0.1).averages
    assert not OuterStep(rate=0.9).averages
    merged = averages(1, START)[0]
    np.testing.assert_allclose(OuterStep().apply(START, merged, None), merged, rtol=0, atol=1e-6)


def test_frozen_parameters_and_integers_stay(tmp_path):
    start = {"frozen": np.ones(2, np.float32), "count": np.array([3], np.int32), "w": START}
    merged = {**start, "w": averages(1, START)[0]}
    trained = TreeLeaves({"w": START, "count": start["count"]})
    out, velocity = epath.Path(tmp_path / "out"), epath.Path(tmp_path / "velocity")
    step = OuterStep(0.7, 0.9)
    step_streamed(step, TreeLeaves(start), TreeLeaves(merged), trained, None, out, velocity)
    written, kept = OrbaxLeaves(out), OrbaxLeaves(velocity)
    assert list(kept.paths()) == ["w"]
    np.testing.assert_array_equal(kept.read("w"), START - merged["w"])
    np.testing.assert_array_equal(written.read("w"), step.apply(START, merged["w"], None))
    for path in ("frozen", "count"):
        np.testing.assert_array_equal(written.read(path), start[path])


def test_without_momentum_no_velocity_is_kept(tmp_path):
    leaves = TreeLeaves({"w": START})
    step_streamed(
        OuterStep(0.5), leaves, leaves, leaves, None, epath.Path(tmp_path / "out"), epath.Path(tmp_path / "v")
    )
    assert not (tmp_path / "v").exists()


def test_a_step_out_of_range_is_refused(tmp_path):
    large = np.full(2, 3e38, np.float32)
    start, merged = TreeLeaves({"w": large}), TreeLeaves({"w": -large})
    with pytest.raises(ValueError, match=r"w: the outer step .* lower rounds\.outer_rate"):
        step_streamed(
            OuterStep(2.0), start, merged, start, None, epath.Path(tmp_path / "out"), epath.Path(tmp_path / "v")
        )
