"""Every way of making branches visits every example the right number of times, and shares seeds where runs coincide."""

import numpy as np
import pytest

from merit_jax import branches
from merit_jax.types import Share

NAMES = ("a", "b", "c")


def test_each_dataset_is_whole_and_in_the_branch_of_its_group():
    made = branches.from_groups(NAMES, np.array([1, 0, 1], np.int32), seed=0)
    assert [branch.shares for branch in made] == [(Share("b"),), (Share("a"), Share("c"))]


def test_a_soups_first_branch_is_joint_training():
    joint = branches.from_groups(NAMES, np.zeros(3, np.int32), seed=5)
    assert joint == branches.replicate(NAMES, 3, seed=5)[:1] == branches.replicate(NAMES, 1, seed=5)


def test_a_soups_branches_differ_in_their_data_order_alone():
    made = branches.replicate(NAMES, 4, seed=5)
    assert {branch.shares for branch in made} == {tuple(Share(name) for name in NAMES)}
    assert len({branch.seed for branch in made}) == 4


def test_example_slices_cover_every_dataset_once():
    made = branches.examples(NAMES, 3, seed=0)
    for name in NAMES:
        shares = [share for branch in made for share in branch.shares if share.dataset == name]
        assert shares == [Share(name, part, 3) for part in range(3)]


@pytest.mark.parametrize("make", [branches.replicate, branches.examples])
def test_branch_seeds_follow_the_run_seed(make):
    first, second = make(NAMES, 2, seed=0), make(NAMES, 2, seed=1)
    assert not {branch.seed for branch in first} & {branch.seed for branch in second}
    assert make(NAMES, 2, seed=0) == first


@pytest.mark.parametrize("groups", [[0, 2, 2], [1, 1, 1], [-1, 0, 1]])
def test_an_empty_group_is_refused(groups):
    with pytest.raises(ValueError, match=r"numbered 0..K-1"):
        branches.from_groups(NAMES, np.array(groups, np.int32), seed=0)


def test_wrong_counts_are_refused():
    with pytest.raises(ValueError, match="2 group numbers for 3 datasets"):
        branches.from_groups(NAMES, np.zeros(2, np.int32), seed=0)
    for make in (branches.replicate, branches.examples):
        with pytest.raises(ValueError, match="0 branches"):
            make(NAMES, 0, seed=0)
