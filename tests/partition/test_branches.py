"""Every way of making branches visits every example the right number of times, and shares seeds where runs coincide."""

import json

import numpy as np
import pytest

from merit_jax.core.types import DatasetSlice
from merit_jax.partition import branches

NAMES = ("a", "b", "c")


def test_each_dataset_is_whole_and_in_the_branch_of_its_group():
    made = branches.from_groups(NAMES, np.array([1, 0, 1], np.int32), seed=0)
    assert [branch.shares for branch in made] == [(DatasetSlice("b"),), (DatasetSlice("a"), DatasetSlice("c"))]


def test_a_soups_first_branch_is_joint_training():
    joint = branches.from_groups(NAMES, np.zeros(3, np.int32), seed=5)
    assert joint == branches.replicate(NAMES, 3, seed=5)[:1] == branches.replicate(NAMES, 1, seed=5)


def test_a_soups_branches_differ_in_their_data_order_alone():
    made = branches.replicate(NAMES, 4, seed=5)
    assert {branch.shares for branch in made} == {tuple(DatasetSlice(name) for name in NAMES)}
    assert len({branch.seed for branch in made}) == 4


def test_example_slices_cover_every_dataset_once():
    made = branches.examples(NAMES, 3, seed=0)
    for name in NAMES:
        shares = [share for branch in made for share in branch.shares if share.dataset == name]
        assert shares == [DatasetSlice(name, part, 3) for part in range(3)]


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


COUNTS = {"a": (10, 100), "b": (7, 70), "c": (3, 31)}


def record() -> branches.Partition:
    return branches.make_partition(
        "median_split", branches.from_groups(NAMES, np.array([1, 0, 1], np.int32), seed=0), COUNTS
    )


def test_a_plan_counts_per_branch_and_survives_json():
    assert (record().samples, record().tokens) == ((7, 13), (70, 131))
    assert branches.Partition.from_dict(json.loads(json.dumps(record().to_dict())), "partition.json") == record()


def test_the_slices_of_a_dataset_add_up_to_its_counts():
    made = branches.make_partition("examples", branches.examples(NAMES, 4, seed=0), COUNTS)
    assert (sum(made.samples), sum(made.tokens)) == (20, 201)
    assert made.samples == (3, 6, 5, 6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shares", [["a", 2, 2]], "0 <= part < part \\+ width <= parts"),
        ("shares", ["a"], "a share is"),
        ("sedd", 0, r"unknown keys \['sedd'\]"),
    ],
)
def test_a_broken_plan_is_refused_with_its_file_and_branch(key, value, message):
    data = json.loads(json.dumps(record().to_dict()))
    data["branches"][1][key] = value
    with pytest.raises(ValueError, match=f"partition.json, branch 1: .*{message}"):
        branches.Partition.from_dict(data, "partition.json")


def test_a_plan_with_a_missing_key_is_refused():
    with pytest.raises(ValueError, match=r"missing keys \['method'\]"):
        branches.Partition.from_dict({"branches": []}, "partition.json")
