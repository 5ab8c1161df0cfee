"""Distances, cosines and the parallel-axis identity, against numpy."""

import numpy as np
import pytest

from merit_jax.checkpoints.readers import TreeLeaves
from merit_jax.diagnostics import displacement as module
from merit_jax.diagnostics.displacement import displacement

RNG = np.random.default_rng(0)
SHAPES = {"a": (3, 5), "b": (7,)}
WEIGHTS = [0.5, 0.2, 0.3]


def random_leaves(scale=1.0):
    return {name: (scale * RNG.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


THETA0 = random_leaves()
BRANCHES = {f"branch {k}": {n: THETA0[n] + delta for n, delta in random_leaves(0.1).items()} for k in range(3)}
MERGED = {n: sum(w * b[n] for w, b in zip(WEIGHTS, BRANCHES.values(), strict=True)) for n in SHAPES}
JOINT = {n: THETA0[n] + delta for n, delta in random_leaves(0.3).items()}


def vector(leaves):
    return np.concatenate([np.ravel(leaves[n].astype(np.float64) - THETA0[n]) for n in SHAPES])


def found(merged=MERGED, joint=JOINT, weights=WEIGHTS):
    readers = {name: TreeLeaves(leaves) for name, leaves in BRANCHES.items()}
    return displacement(
        TreeLeaves(THETA0), readers, weights, TreeLeaves(merged), TreeLeaves(joint) if joint is not None else None
    )


def test_distances_and_cosines_are_those_of_the_task_vectors(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    vectors = np.stack([vector(leaves) for leaves in (*BRANCHES.values(), MERGED, JOINT)])
    norms = np.linalg.norm(vectors, axis=1)
    result = found()
    assert result.names == (*BRANCHES, "merged", "joint")
    np.testing.assert_allclose(result.distances, norms, rtol=1e-10)
    np.testing.assert_allclose(result.cosines, vectors @ vectors.T / np.outer(norms, norms), rtol=1e-10)
    assert result.joint_over_merged == pytest.approx(norms[-1] / norms[-2])


def test_the_parallel_axis_identity_holds_for_the_weighted_mean():
    identity = found().parallel_axis
    branches = np.stack([vector(leaves) for leaves in BRANCHES.values()])
    mean = np.array(WEIGHTS) @ branches
    assert identity.branches == pytest.approx(np.array(WEIGHTS) @ (branches**2).sum(axis=1))
    assert identity.spread == pytest.approx(np.array(WEIGHTS) @ ((branches - mean) ** 2).sum(axis=1), rel=1e-5)
    assert identity.residual == pytest.approx(0, abs=1e-6)
    assert identity.contraction == pytest.approx((mean @ mean) / identity.branches, rel=1e-5)
    assert identity.contraction < 1


def test_the_identity_does_not_hold_for_another_merge():
    assert abs(found(merged={n: 2 * MERGED[n] - THETA0[n] for n in SHAPES}).parallel_axis.residual) > 0.01


def test_without_weights_of_a_mean_the_identity_is_not_defined():
    result = found(weights=None)
    assert result.parallel_axis is None
    np.testing.assert_array_equal(result.cosines, found().cosines)


def test_without_joint_training_there_is_no_ratio():
    result = found(joint=None)
    assert (result.joint_over_merged, result.names[-1]) == (None, "merged")


def test_a_model_that_did_not_move_has_no_direction():
    result = found(joint=THETA0)
    assert result.distances[-1] == 0
    assert np.isnan(result.cosines[-1]).all()
