"""Another `partition.seed` is another random partition of the same run."""

import re
from pathlib import Path

import numpy as np
import pytest

from merit_jax.core.seeds import fold
from merit_jax.gradients.store import GradientStore
from merit_jax.partition import PARTITIONERS
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.stages import run_stages
from merit_jax.reporting.page import write_report
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir
from tests.support import world


def gradients_of(run):
    return [row[:] for row in GradientStore(run.workdir.gradients).rows(run.names)]


@pytest.fixture
def divided(finished, tmp_path):
    """Makes the partition of a seed; returns its run."""

    def divide(method, seed):
        config = world.config(Path(finished.workdir.root).parent, method, **{"partition.seed": seed})
        run = finished.derive(config, Workdir.at(tmp_path / f"{method}-{seed}", finished.workdir.shared))
        run_stages(run, ("partition",))
        return run

    return divide


def groups(run):
    """Group of each dataset."""
    found = {share.dataset: k for k, branch in enumerate(load_partition(run).branches) for share in branch.shares}
    return [found[name] for name in run.names]


def test_seed_0_is_the_partition_of_the_runs_seed(divided, finished):
    run = divided("random2", 0)
    expected = PARTITIONERS["random"](
        np.zeros((6, 1), np.float32), np.array(finished.samples), similarity=None, groups=2, seed=fold(0, "partition")
    )
    assert groups(run) == expected.tolist()
    assert "seed" not in read_json(run.workdir.partition)["inputs"]["partition"]


def test_another_seed_is_another_partition_into_as_many_groups(divided):
    found = {seed: tuple(groups(divided("random2", seed))) for seed in range(4)}
    assert len(set(found.values())) > 1
    assert {tuple(sorted(set(row))) for row in found.values()} == {(0, 1)}
    assert tuple(groups(divided("random2", 1))) == found[1]


def test_the_order_of_a_branchs_data_does_not_depend_on_it(divided):
    seeds = [[branch.seed for branch in load_partition(divided("random2", seed)).branches] for seed in (0, 1)]
    assert seeds[0] == seeds[1]


def test_a_partition_that_is_there_is_not_that_of_another_seed(divided, finished):
    run = divided("random2", 1)
    other = finished.derive(world.config(Path(finished.workdir.root).parent, "random2"), run.workdir)
    with pytest.raises(ValueError, match=r"partition\.json was made from other inputs: partition\.seed: 1 -> nothing"):
        run_stages(other, ("partition",))


def raw_split(run):
    """Halves of the datasets along the first principal component of their gradients."""
    G = np.stack(gradients_of(run)).astype(np.float64)
    U, S, _ = np.linalg.svd(G - G.mean(axis=0), full_matrices=False)
    scores = (U * S)[:, :1]
    scores *= np.sign(scores[np.argmax(np.abs(scores))])
    return PARTITIONERS["median_split"](scores, np.array(run.samples)).tolist()


def test_the_representation_is_the_methods_and_costs_no_gradients(divided, finished, monkeypatch):
    monkeypatch.setattr("merit_jax.pipeline.estimate_gradients.gradient_rows", None)
    run = divided("raw1d", 0)
    assert groups(run) == raw_split(finished)
    inputs = read_json(run.workdir.partition)["inputs"]
    assert inputs["representation"] == {"similarity": "gram", "centring": "double"}
    assert "representation" not in read_json(divided("merit1d", 0).workdir.partition)["inputs"]


def test_random_partitions_of_different_seeds_are_not_shifted_copies(divided, finished):
    draws = [fold(0, "partition", "1"), fold(1, "partition")]
    assert draws[0] != draws[1]
    expected = PARTITIONERS["random"](
        np.zeros((6, 1), np.float32), np.array(finished.samples), similarity=None, groups=2, seed=draws[0]
    )
    assert groups(divided("random2", 1)) == expected.tolist()


def test_an_unknown_similarity_is_named(finished, tmp_path):
    changes = {"conflict.similarity": "dot"}
    config = world.config(Path(finished.workdir.root).parent, "merit1d")
    config.unlock().update_from_flattened_dict(changes)
    run = finished.derive(config.lock(), Workdir.at(tmp_path / "dot", finished.workdir.shared))
    with pytest.raises(ValueError, match=r"unknown conflict\.similarity 'dot'; known: cosine, gram"):
        run_stages(run, ("partition",))


@pytest.fixture
def changed(finished, tmp_path):
    """Makes the partition of a method with keys of `partition`; returns its run."""

    def change(name, method, **keys):
        given = {f"partition.{key}": value for key, value in keys.items()}
        config = world.config(Path(finished.workdir.root).parent, method, **given)
        run = finished.derive(config, Workdir.at(tmp_path / name, finished.workdir.shared))
        run_stages(run, ("partition",))
        return run

    return change


def shares(run):
    """Dataset -> its share in each branch."""
    found = {name: [0.0] * len(load_partition(run).branches) for name in run.names}
    for k, branch in enumerate(load_partition(run).branches):
        for share in branch.shares:
            found[share.dataset][k] += share.share
    return found


@pytest.mark.parametrize("method", ["merit1d", "random2", "kmeans2"])
def test_a_core_is_in_every_branch_and_the_rest_where_it_was(changed, method):
    plain, cored = changed("plain", method), changed("cored", method, core=0.5)
    for name, (low, high) in ((name, sorted(row)) for name, row in shares(cored).items()):
        assert 0 < low < high < 1
        assert np.argmax(shares(cored)[name]) == np.argmax(shares(plain)[name])
    samples = dict(zip(cored.names, cored.samples, strict=True))
    assert sum(load_partition(cored).samples) == sum(samples.values()) == sum(load_partition(plain).samples)
    assert "core" not in read_json(plain.workdir.partition)["inputs"]["partition"]
    assert read_json(cored.workdir.partition)["inputs"]["partition"]["core"] == 0.5


def test_a_public_dataset_is_dealt_and_the_others_stay_whole(changed):
    found = shares(changed("public", "merit1d", core_datasets=("cop*",)))
    assert max(found.pop("copy")) < 0.6
    assert all(sorted(row) == [0, 1] for row in found.values())


def test_a_pattern_that_matches_no_dataset_is_refused(changed):
    with pytest.raises(ValueError, match=r"partition.core_datasets: no dataset matches 'copi\*'; the mixture has copy"):
        changed("absent", "merit1d", core_datasets=("copi*",))


def test_a_soft_split_divides_datasets(changed):
    found = shares(changed("soft", "merit1d", softness=0.3))
    assert any(min(row) > 0 for row in found.values())


def test_a_core_and_softness_are_trained_merged_and_described(finished, tmp_path):
    given = {"partition.core": 0.5, "partition.softness": 0.1}
    config = world.config(Path(finished.workdir.root).parent, "merit1d", **given)
    run = finished.derive(config, Workdir.at(tmp_path / "whole", finished.workdir.shared))
    run_stages(run, ("partition", "train", "merge", "export"))
    record = read_json(run.workdir.merge_record)
    assert len(record["weights"]) == 2
    run.workdir.config.write_text(config.to_json_best_effort())
    html = write_report(run.workdir, "here").read_text()
    assert re.search(r"50\s%\sof every dataset dealt over all of them, softly \(softness 0\.1\)", html)
    assert " of " in Path(run.workdir.merged_hf / "README.md").read_text()
    done = [read_json(run.workdir.branch_done(k)) for k in range(2)]
    one = world.config(Path(finished.workdir.root).parent, "joint")
    joint = finished.derive(one, Workdir.at(tmp_path / "joint", finished.workdir.shared))
    run_stages(joint, ("partition", "train"))
    assert sum(each["tokens"] for each in done) == read_json(joint.workdir.branch_done(0))["tokens"]


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        (
            "random4",
            {"core_datasets": ("copy", "upper", "first")},
            r"groups = 4: random cannot make 4 non-empty groups of 3 datasets; partition\.core_d",
        ),
        (
            "examples32",
            {},
            r"partition\.groups = 32: branch 0 would have none of the \d+ examples of 6",
        ),
        ("random128", {"core_datasets": ("*",)}, r"partition\.groups = 128: branch \d+ would have none"),
    ],
)
def test_more_branches_than_the_mixture_fills_are_refused_by_key(changed, method, keys, message):
    with pytest.raises(ValueError, match=message):
        changed("many", method, **keys)


def test_a_core_of_everything_needs_no_groups_of_datasets(changed):
    partition = load_partition(changed("all", "random8", core=1.0))
    assert max(partition.samples) - min(partition.samples) <= 1
