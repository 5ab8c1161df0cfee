"""Rounds and a warm start: every example once per epoch, each round from the merge before it, resumed to the same bits."""

import contextlib
import dataclasses
import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from merit_jax.checkpoints.readers import OrbaxLeaves, OverlayLeaves
from merit_jax.core import tree
from merit_jax.core.errors import UnfinishedError
from merit_jax.core.types import Branch
from merit_jax.data.sampler import BranchExamples
from merit_jax.pipeline import rounds, train_branches
from merit_jax.pipeline.merge_record import read_merge
from merit_jax.pipeline.partition_mixture import load_partition, needs_conflict
from merit_jax.pipeline.rounds import planned_tokens, round_bounds, round_datasets, round_numbers, round_run
from merit_jax.pipeline.stages import OF_A_ROUND, open_round, run_stages, train_rounds
from merit_jax.workdir.artifacts import read_inputs, read_json
from tests.support import world

pytestmark = pytest.mark.usefixtures("one_device")

KEYS = {"rounds.count": 2, "rounds.warm": 0.25, "train.epochs": 2.0}


def rounds_of(run):
    return [round_run(run, number) for number in round_numbers(run.config)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled, one_device):
    """A warm start and two rounds of two branches; not to be written to."""
    run = world.run(tmp_path_factory.mktemp("rounds"), "done", "merit1d", **KEYS)
    assert run_stages(run, OF_A_ROUND)
    return run


def merged(run):
    return world.host(OrbaxLeaves(run.workdir.merged_params))


def branch(part, k):
    leaves = OverlayLeaves(part.theta0.leaves(), train_branches.branch_leaves(part, k))
    return world.host(leaves)


def test_every_example_is_visited_once_per_epoch(run):
    visited = Counter()
    for part in rounds_of(run):
        for entry in load_partition(part).branches:
            examples = BranchExamples(part.datasets, entry, part.config.seed)
            visited.update(example.tokens.tobytes() for example in examples)
    assert visited == Counter(example.tokens.tobytes() for dataset in run.datasets for example in dataset.train)
    assert visited.total() > 80


def test_the_warm_start_has_its_share_of_every_dataset(run):
    warm, *others = rounds_of(run)
    for dataset, first, parts in zip(
        run.datasets, warm.datasets, zip(*(o.datasets for o in others), strict=True), strict=True
    ):
        assert len(first.train) == round(len(dataset.train) / 4)
        assert abs(len(parts[0].train) - len(parts[1].train)) <= 1
    assert [len(load_partition(part).branches) for part in rounds_of(run)] == [1, 2, 2]


def test_the_tokens_are_those_of_joint_training(run):
    record = read_json(run.workdir.merge_record)["rounds"]
    assert [entry["round"] for entry in record["trained"]] == [0, 1, 2]
    assert sum(sum(entry["tokens"]) for entry in record["trained"]) == 2 * sum(run.tokens)
    assert sum(sum(entry["all_tokens"]) for entry in record["trained"]) == 2 * sum(run.all_tokens)
    assert planned_tokens(run) == sum(run.tokens)


def test_each_round_starts_from_the_merge_before_it(run):
    parts = rounds_of(run)
    assert [part.workdir.root.name for part in parts] == ["0", "1", "2"]
    assert parts[0].theta0_fingerprint == run.theta0_fingerprint
    for before, part in itertools.pairwise(parts):
        start, former = world.host(part.theta0.leaves()), merged(before)
        for path, leaf in former.items():
            np.testing.assert_array_equal(start[path], leaf)
        for k in range(2):
            assert read_inputs(part.workdir.branch_done(k))["theta0"] == part.theta0_fingerprint
    assert len({part.theta0_fingerprint for part in parts}) == 3


def test_the_gradients_are_measured_at_the_warm_model_and_again_at_the_next(run):
    for part in rounds_of(run)[1:]:
        assert read_inputs(part.workdir.gradient_index)["theta0"] == part.theta0_fingerprint
    assert not run.workdir.gradients.exists()


def test_the_merged_model_is_the_start_and_the_mean_of_the_branches_steps(run):
    for part, whole in zip(rounds_of(run)[1:], (None, run), strict=True):
        result = merged(whole or part)
        record = read_json((whole or part).workdir.merge_record)
        start, trained = world.host(part.theta0.leaves()), [branch(part, k) for k in range(2)]
        weights = np.array(record["tokens"], np.float64) / sum(record["tokens"])
        for path, leaf in result.items():
            steps = sum(
                c * (theta[path].astype(np.float64) - start[path]) for c, theta in zip(weights, trained, strict=True)
            )
            np.testing.assert_allclose(leaf, start[path] + steps, rtol=0, atol=1e-6)
            assert whole is None or np.abs(steps).max() > 1e-5


def test_theta0_of_the_whole_run_is_the_checkpoint(run):
    record = read_merge(run)
    assert record["inputs"]["theta0"] == run.theta0_fingerprint
    theta0, result = world.host(run.theta0.leaves()), merged(run)
    squares = sum(np.square(result[path].astype(np.float64) - theta0[path]).sum() for path in result)
    assert record["displacement"]["merged"] == pytest.approx(np.sqrt(squares), rel=1e-6)


def test_finished_rounds_are_left_alone(run):
    again = world.run(Path(run.workdir.root).parent, "done", "merit1d", **KEYS)
    assert not run_stages(again, OF_A_ROUND)


def test_what_is_sent(run):
    record = read_json(run.workdir.merge_record)["rounds"]
    size = sum(leaf.size * 4 for leaf in tree.flatten(run.params).values())
    steps = sum(sum(entry["steps"]) for entry in record["trained"])
    assert record["bytes"] == {
        "up_per_round": size,
        "down_per_round": size,
        "up": 2 * size,
        "down": 2 * size,
        "joint_per_step": size,
        "joint": size * steps,
    }


@pytest.mark.parametrize("killed", ["0", "1", "2"])
def test_a_killed_run_resumes_to_the_same_bits(run, tmp_path, monkeypatch, killed):
    again = world.copied(run, tmp_path, "merit1d", **KEYS)
    for number in range(int(killed), 3):
        shutil.rmtree(again.workdir.round(number))
    shutil.rmtree(again.workdir.merged)
    with monkeypatch.context() as patch:
        patch.setattr(train_branches, "preemption_notice", lambda: contextlib.nullcontext(lambda step: step == 2))
        with pytest.raises(UnfinishedError):
            run_stages(again, OF_A_ROUND)
    assert not (again.workdir.round(int(killed)) / "merged").exists()
    assert run_stages(again, OF_A_ROUND)
    for path, leaf in merged(run).items():
        np.testing.assert_array_equal(merged(again)[path], leaf)
    assert read_inputs(again.workdir.merge_record) == read_inputs(run.workdir.merge_record)


def test_a_round_after_one_of_another_config_is_refused(run, tmp_path):
    other = world.copied(run, tmp_path, "merit1d", **{**KEYS, "train.learning_rate": 2e-3})
    with pytest.raises(
        ValueError, match=r"rounds/0/branches/0/done\.json was made from other inputs: train\.learning_rate"
    ):
        open_round(other, 1)
    with pytest.raises(ValueError, match=r"rounds/0/branches/0/.*train\.learning_rate"):
        run_stages(other, ("train",))


def test_a_round_before_its_start_is_merged_is_refused(run, tmp_path):
    begun = world.copied(run, tmp_path, "merit1d", **KEYS)
    shutil.rmtree(begun.workdir.round(1) / "merged")
    with pytest.raises(ValueError, match=r"rounds/1 is not merged yet"):
        round_run(begun, 2)
    with pytest.raises(ValueError, match=r"no round 3; rounds\.count and rounds\.warm make 0 to 2"):
        round_run(begun, 3)


def test_a_missing_branch_is_no_start(run):
    with pytest.raises(ValueError, match=r"--allow_missing: a round starts from the merge of the one before"):
        round_run(dataclasses.replace(run, allow_missing=True), 1)


def test_a_branch_that_another_run_has_is_not_trained_again(run, tmp_path, monkeypatch):
    world.beside(run, tmp_path)
    other = world.run(tmp_path, "other", "random2", **KEYS)
    trained = []
    monkeypatch.setattr(train_branches, "_fine_tune", lambda run, *_: trained.append(run.workdir.root.name) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_rounds(other, [run.workdir])
    assert trained == ["1"]
    for path, leaf in merged(round_run(run, 0)).items():
        np.testing.assert_array_equal(merged(round_run(other, 0))[path], leaf)


def test_once_keeps_the_groups_of_the_first_round(run, tmp_path):
    world.beside(run, tmp_path)
    once = world.run(tmp_path, "once", "merit1d", **{"rounds.count": 2, "rounds.split": "once"})
    assert run_stages(once, ("train",))
    first, second = rounds_of(once)
    assert load_partition(second).branches[0].shares == load_partition(first).branches[0].shares
    assert load_partition(second).branches[0].seed != load_partition(first).branches[0].seed
    assert load_partition(second).samples != (0, 0)
    assert needs_conflict(first)
    assert not needs_conflict(second)
    assert not second.workdir.gradients.exists()
    second.workdir.partition.unlink()
    first.workdir.partition.unlink()
    with pytest.raises(ValueError, match=r"partition\.like = .*rounds/1.*partition\.json is missing"):
        run_stages(second, ("partition",))


def test_by_epochs_every_round_has_all_examples_for_some_of_the_epochs(run, tmp_path):
    world.beside(run, tmp_path)
    parts = {"rounds.count": 2, "rounds.warm": 0.25, "rounds.part": "epochs", "train.epochs": 4.0}
    split = world.run(tmp_path, "epochs", "random2", **parts)
    for number, epochs in ((0, 4.0), (1, 2.0), (2, 2.0)):
        assert rounds.round_config(split.config, split.workdir, number).train.epochs == epochs
    reports = [[dataset.report for dataset in round_datasets(split, number)] for number in (1, 2)]
    assert reports[0] == reports[1]
    assert [len(d.train) for d in round_datasets(split, 1)] == [
        len(d.train) - round(len(d.train) / 4) for d in run.datasets
    ]
    assert planned_tokens(split) == sum(run.tokens)
    seeds = {rounds.round_config(split.config, split.workdir, number).seed for number in (0, 1, 2)}
    assert len(seeds) == 3


def test_one_schedule_over_all_rounds_or_one_for_each(run, tmp_path):
    world.beside(run, tmp_path)
    whole = world.run(tmp_path, "whole", "random2", **{**KEYS, "rounds.schedule": "whole"})
    spans = [tuple(rounds.round_config(whole.config, whole.workdir, number).train.schedule_span) for number in range(3)]
    assert spans == [(0.0, 1.0), (0.0, 0.5), (0.5, 1.0)]
    for number, recorded in ((0, False), (1, True)):
        part = round_run(dataclasses.replace(run, config=whole.config), number)
        inputs = train_branches.branch_inputs(part, Branch((), 0))["train"]
        assert ("schedule_span" in inputs) == recorded
    assert "schedule_span" not in read_inputs(round_run(run, 2).workdir.branch_done(0))["train"]


def test_datasets_that_are_too_small_for_the_rounds(run, tmp_path):
    world.beside(run, tmp_path)
    many = world.run(tmp_path, "many", "merit1d", **{"rounds.count": 13})
    with pytest.raises(ValueError, match=r"dataset 'copy': 12 training examples are too few for rounds\.count = 13"):
        round_run(many, 1)


def test_bounds_cover_every_example_once():
    for count in (1, 2, 3, 8):
        for warm in (0.0, 0.1, 1 / 3):
            keys = ConfigDict({"count": count, "warm": warm, "part": "examples"})
            for examples in (9, 10, 100, 1001):
                bounds = [round_bounds(examples, number, keys) for number in range(count + 1)]
                assert bounds[0] == (0, round(examples * warm))
                assert [first for first, _ in bounds[1:]] == [last for _, last in bounds[:-1]]
                assert bounds[-1][1] == examples
                sizes = [last - first for first, last in bounds[1:]]
                assert max(sizes) - min(sizes) <= 1


def test_one_round_without_a_warm_start_is_an_ordinary_run(finished):
    assert not rounds.in_rounds(finished.config)
    assert "rounds" not in read_json(finished.workdir.merge_record)
    assert not finished.workdir.round(0).parent.exists()
    assert set(read_inputs(finished.workdir.partition)) == {"partition", "text", "datasets", "gradients"}
    assert read_inputs(finished.workdir.partition)["partition"] == {"method": "median_split", "groups": 4}


def mean(part, record):
    """The branches' mean by tokens, in float64."""
    weights = np.array(record["tokens"], np.float64) / sum(record["tokens"])
    trained = [branch(part, k) for k in range(len(weights))]
    return {path: np.tensordot(weights, [theta[path] for theta in trained], axes=1) for path in trained[0]}


def test_the_outer_step_is_that_of_nesterov_with_a_velocity_that_rounds_hand_on(run, tmp_path):
    world.beside(run, tmp_path)
    keys = {"rounds.count": 2, "rounds.warm": 0.25, "rounds.outer_rate": 0.7, "rounds.momentum": 0.9}
    outer = world.run(tmp_path, "outer", "random2", **keys)
    assert run_stages(outer, OF_A_ROUND)
    warm, first, second = rounds_of(outer)
    velocity = dict.fromkeys(merged(outer), 0.0)
    for part, whole in ((first, first), (second, outer)):
        start, record = world.host(part.theta0.leaves()), read_json(whole.workdir.merge_record)
        assert not record["weighted_mean"]
        assert record["inputs"]["outer"]["rate"] == 0.7
        average, result = mean(part, record), merged(whole)
        for path, leaf in result.items():
            gradient = start[path].astype(np.float64) - average[path]
            velocity[path] = 0.9 * velocity[path] + gradient
            np.testing.assert_allclose(leaf, start[path] - 0.7 * (gradient + 0.9 * velocity[path]), rtol=0, atol=1e-6)
    assert "outer" not in read_inputs(warm.workdir.merge_record)
    assert read_merge(outer)["displacement"]["merged"] > 0
    before = merged(outer)
    shutil.rmtree(outer.workdir.merged)
    assert run_stages(outer, ("merge",))
    for path, leaf in before.items():
        np.testing.assert_array_equal(merged(outer)[path], leaf)
    files = [file for file in Path(first.workdir.merged_velocity).rglob("*") if file.is_file()]
    files[0].write_bytes(b"damaged")
    shutil.rmtree(outer.workdir.merged)
    with pytest.raises(ValueError, match=r"rounds/1/merged/velocity"):
        run_stages(outer, ("merge",))


def test_a_workdir_of_a_run_with_other_rounds_is_refused_before_training(finished, run, tmp_path):
    in_rounds = world.copied(finished, tmp_path, **{"rounds.count": 2})
    with pytest.raises(
        ValueError, match=r"partition\.json is of a run without rounds, and rounds\.count = 2 with rounds\.warm = 0"
    ):
        run_stages(in_rounds, ("train",))
    assert not (in_rounds.workdir.root / "rounds").exists()
    without = run.derive(world.config(run.workdir.root.parent, "merit1d"), run.workdir)
    with pytest.raises(ValueError, match=r"rounds is of a run in rounds, and rounds\.count = 1 .*; give the keys"):
        run_stages(without, ("partition", "train"))
    assert not run.workdir.partition.exists()


def test_a_warm_start_is_joint_whatever_the_split_is_like(run, tmp_path):
    world.beside(run, tmp_path)
    first = world.run(tmp_path, "first", "merit1d", **{"partition.core": 0.5})
    run_stages(first, ("mixture", "gradients", "conflict", "partition"))
    keys = {"partition.like": str(first.workdir.root), "partition.core": 0.5, "rounds.warm": 0.25}
    warm = round_run(world.run(tmp_path, "warm", "merit1d", **keys), 0)
    assert run_stages(warm, ("partition",))
    assert len(load_partition(warm).branches) == 1


def test_an_outer_rate_scales_the_step_of_a_run_without_rounds(finished, tmp_path):
    scaled = world.copied(finished, tmp_path, overwrite=True, **{"rounds.outer_rate": 0.5})
    assert run_stages(scaled, ("merge",))
    theta0, average, result = world.host(finished.theta0.leaves()), merged(finished), merged(scaled)
    for path, leaf in result.items():
        np.testing.assert_allclose(leaf, (theta0[path] + average[path]) / 2, rtol=0, atol=1e-6)
    whole = read_json(finished.workdir.merge_record)["displacement"]["merged"]
    assert read_json(scaled.workdir.merge_record)["displacement"]["merged"] == pytest.approx(whole / 2, rel=1e-4)
    assert not (scaled.workdir.merged / "average").exists()
