"""Datasets in several branches: exact counts, a common core, and soft splits between whole datasets and slices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit_jax.core.types import DatasetSlice
from merit_jax.data.sampler import share_indices
from merit_jax.partition import PARTITIONERS
from merit_jax.partition.branches import divided, examples, from_groups
from merit_jax.partition.shares import balanced, exact_counts, whole, with_core

SIZES = st.lists(st.integers(1, 400), min_size=4, max_size=12)


@st.composite
def cores(draw):
    """(groups, samples, K, core)."""
    samples, k = draw(SIZES), draw(st.integers(1, 4))
    groups = np.arange(len(samples)) % k
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(groups), samples, k, draw(st.floats(0, 1))


@given(cores())
def test_every_example_is_in_one_branch_and_every_count_is_next_to_its_share(case):
    groups, samples, k, core = case
    shares = with_core(whole(groups, k), core)
    counts = exact_counts(shares, samples)
    assert counts.sum(axis=1).tolist() == samples
    assert (np.abs(counts - shares * np.array(samples)[:, None]) < 1 + 1e-6).all()
    if not counts.sum(axis=0).all():
        return
    names = [f"d{i}" for i in range(len(samples))]
    made = divided(names, counts, seed=1)
    for name, n in zip(names, samples, strict=True):
        found = [share_indices(n, share, 5) for branch in made for share in branch.shares if share.dataset == name]
        assert sorted(np.concatenate(found).tolist()) == list(range(n))


@given(cores())
def test_rounding_does_not_add_up_in_a_branch(case):
    """A thousand datasets of which each rounds the same way alone."""
    groups, samples, k, core = case
    shares = np.tile(with_core(whole(groups, k), core), (100, 1))
    sizes = np.tile(samples, 100)
    wanted = sizes @ shares
    assert np.abs(exact_counts(shares, sizes).sum(axis=0) - wanted).max() <= k


def test_a_core_deals_its_share_alike_and_leaves_the_rest_in_its_group():
    counts = exact_counts(with_core(whole(np.array([1, 0]), 4), 0.25), [160, 320])
    assert counts.tolist() == [[10, 130, 10, 10], [260, 20, 20, 20]]


def test_its_ends_are_whole_datasets_and_slices():
    names, groups, samples = ("a", "b", "c"), np.array([1, 0, 1], np.int32), [40, 8, 16]
    ends = [divided(names, exact_counts(with_core(whole(groups, 2), core), samples), seed=3) for core in (0.0, 1.0)]
    assert ends[0] == from_groups(names, groups, seed=3)
    assert ends[1] == examples(names, 2, seed=3)


def test_a_core_can_differ_between_datasets():
    assert with_core(whole(np.array([0, 1]), 2), np.array([0.0, 1.0])).tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("counts", [[[1, 0], [2, 0]], [[0, 0], [1, 2]], [[1, -1], [1, 2]], [[1, 2]]])
def test_counts_that_leave_a_branch_or_dataset_without_examples_are_refused(counts):
    with pytest.raises(ValueError, match="each, and no row or column of zeros"):
        divided(("a", "b"), np.array(counts), seed=0)


def test_fitted_shares_have_the_sizes_and_keep_their_zeros():
    with np.errstate(divide="ignore"):
        logs = np.log([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    shares = balanced(logs, [3, 5, 4], np.array([4.0, 4.0, 4.0]))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(np.array([3, 5, 4]) @ shares, 4, rtol=1e-6)
    assert shares[0, 2] == 0


def scores(seed=0, datasets=16, axes=2):
    return np.random.default_rng(seed).standard_normal((datasets, axes))


@pytest.mark.parametrize("method", ["median_split", "random"])
def test_a_soft_split_goes_from_whole_datasets_to_slices(method):
    partitioner, z, samples = PARTITIONERS[method], scores(), np.arange(10, 26)
    groups = partitioner(z, samples, groups=4, seed=7)
    softs = {
        s: partitioner.soft(z, samples, groups=4, seed=7, softness=s) for s in (0.0, 1e-6, 0.2, 0.5, 0.999999, 1.0)
    }
    assert softs[0.0].tolist() == whole(groups, 4).tolist()
    np.testing.assert_allclose(softs[1e-6], softs[0.0], atol=1e-3)
    np.testing.assert_allclose(softs[0.999999], 0.25, atol=1e-3)
    assert (softs[1.0] == 0.25).all()
    own = [shares[np.arange(16), groups].mean() for shares in softs.values()]
    assert own == sorted(own, reverse=True)


def test_a_soft_split_divides_most_what_is_nearest_to_a_cut_and_keeps_the_balance():
    z, samples = scores(1, 20, 1), np.full(20, 50)
    shares = PARTITIONERS["median_split"].soft(z, samples, softness=0.3)
    order = np.argsort(z[:, 0])
    assert (np.diff(shares[order, 1]) > 0).all()
    np.testing.assert_allclose(samples @ shares, 500, rtol=1e-6)


def test_a_second_axis_is_cut_in_each_half_where_the_hard_split_cuts_it():
    """The halves of the first axis have their medians of the second at 10 and at -10."""
    z = np.array(
        [[x, y] for x, y in [(-9, 9), (-8, 9.5), (-9, 10.5), (-8, 11), (8, -11), (9, -10.5), (8, -9.5), (9, -9)]]
    )
    shares = PARTITIONERS["median_split"].soft(np.array(z, float), np.full(8, 10), softness=0.01)
    np.testing.assert_allclose(shares.max(axis=1), 1, atol=0.02)
    assert shares.argmax(axis=1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_duplicates_are_divided_alike_and_axes_that_do_not_exist_divide_evenly():
    soft = PARTITIONERS["median_split"].soft
    shares = soft(np.array([[1.0], [1.0], [1.0], [-3.0]]), [5, 5, 5, 5], softness=0.2)
    assert np.ptp(shares[:3], axis=0).max() == 0
    np.testing.assert_allclose(soft(np.zeros((4, 2)), [5, 5, 5, 5], softness=0.2), 0.25)


@pytest.mark.parametrize("softness", [-0.1, 1.5])
def test_a_softness_out_of_range_is_refused(softness):
    with pytest.raises(ValueError, match="softness"):
        PARTITIONERS["random"].soft(scores(), np.full(16, 3), groups=2, softness=softness)


def test_a_slice_says_which_examples_it_has():
    assert (
        share_indices(8, DatasetSlice("a", 1, 4, 2), 0).tolist()
        == share_indices(8, DatasetSlice("a", 0, 1), 0)[2:6].tolist()
    )
    with pytest.raises(ValueError, match="expected 0 <= part < part"):
        share_indices(8, DatasetSlice("a", 3, 4, 2), 0)


def test_a_split_that_is_nearly_hard_has_its_sizes_too():
    z = [[-1.52, -2.47], [0.62, 2.55], [-1.0, -1.25], [0.59, -0.84], [-0.51, -0.35], [0.53, -0.41]]
    samples = np.array([134, 183, 988, 233, 574, 3304])
    split = PARTITIONERS["median_split"]
    hard = samples @ whole(split(np.array(z), samples, groups=4), 4)
    for softness in (0.001, 0.02, 0.1):
        shares = split.soft(np.array(z), samples, groups=4, softness=softness)
        wanted = (1 - softness) * hard + softness * samples.sum() / 4
        np.testing.assert_allclose(samples @ shares, wanted, atol=0.01)
        assert np.abs(exact_counts(shares, samples).sum(axis=0) - wanted).max() < 2
