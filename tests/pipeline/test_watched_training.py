"""A branch of a run says the loss of each dataset while it trains, and on held-out examples, to its log and to trackers."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.core import tree
from merit_jax.data.bucketing import bucketed_batches
from merit_jax.data.chat_template import encode
from merit_jax.pipeline import track_branch
from merit_jax.pipeline.merge_inputs import branch_tokens, finished_branches
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.stages import run_stages
from merit_jax.pipeline.train_branches import branch_batches, finished_branch, train_branch
from merit_jax.training import trackers
from merit_jax.training.trackers import TrackerKind
from tests.support import world

WATCHED = {"train.held_out_every": 1, "train.held_out_examples": 4}


def again(finished, root, branch=0, **changes):
    """The run, with one branch to be trained again."""
    run = world.copied(finished, root, overwrite=True, **changes)
    run.workdir.branch(branch).rmtree()
    return run


def lines(run, branch=0):
    return [json.loads(line) for line in Path(run.workdir.branch_metrics(branch)).read_text().splitlines()]


class Recorded:
    """A tracker in memory."""

    opened: list = []  # noqa: RUF012

    def __init__(self, run):
        self.run, self.latest, self.steps, self.finished = run, -1, [], None
        self.opened.append(self)

    def log(self, step, values):
        self.steps.append((step, dict(values)))

    def close(self, *, finished):
        self.finished = finished


@pytest.fixture
def recorded(monkeypatch):
    """The trackers that are opened as "wandb"."""
    monkeypatch.setattr(track_branch, "TRACKERS", {"wandb": TrackerKind("json", "x", Recorded)})
    monkeypatch.setattr(track_branch, "check_trackers", lambda names: None)
    monkeypatch.setattr(Recorded, "opened", [])
    return Recorded.opened


def test_the_log_has_every_dataset_and_watching_changes_nothing(finished, tmp_path, recorded):
    changes = {**WATCHED, "train.trackers": ("wandb",), "train.project": "study"}
    run = again(finished, tmp_path, **changes)
    assert train_branch(run, 0)
    done, before = finished_branch(run, 0), finished_branch(finished, 0)
    assert {**done, "seconds": 0} == {**before, "seconds": 0}
    found, own = lines(run), {share.dataset for share in load_partition(run).branches[0].shares}
    trained = [line for line in found if "loss" in line]
    for line in trained:
        sums = [loss * line["count_by_dataset"][name] for name, loss in line["loss_by_dataset"].items()]
        assert sum(sums) / line["tokens"] == pytest.approx(line["loss"], abs=1e-5)
        assert sum(line["count_by_dataset"].values()) == line["tokens"]
    datasets = {dataset.name: dataset for dataset in run.datasets}
    for name in own:
        counted = sum(line["count_by_dataset"].get(name, 0) for line in trained)
        assert counted == datasets[name].report.tokens
    assert [line["step"] for line in found] == list(range(len(trained) + 1))
    assert all(line["held_out_by_dataset"].keys() == own for line in found)
    assert all(line["learning_rate"] > 0 for line in trained)
    (tracker,) = recorded
    assert (tracker.run.project, tracker.run.name, tracker.finished) == ("study", "branch-0", True)
    assert [step for step, _ in tracker.steps] == [line["step"] for line in found]
    assert {name for name in tracker.steps[0][1] if "/" in name} == {f"held_out_by_dataset/{name}" for name in own}


def test_the_held_out_loss_is_that_of_the_kept_parameters(finished, tmp_path):
    run = again(finished, tmp_path, **{**WATCHED, "train.held_out_examples": 100})
    train_branch(run, 0)
    leaves = OrbaxLeaves(params_directory(run.workdir.branch(0) / "checkpoints"))
    params = tree.join({path: leaves.read(path) for path in leaves.paths()}, tree.split(run.params, [".*"])[1])
    own = {share.dataset for share in load_partition(run).branches[0].shares}
    total = np.zeros(2)
    for dataset in run.datasets:
        if dataset.name in own:
            examples = [encode(run.tokenizer, record.messages, 96)[0] for record in dataset.held_out]
            sums = np.zeros(2)
            for _, batch in bucketed_batches(examples, buckets=(96,), batch_size=1):
                sums += [float(part.sum()) for part in jax.jit(run.loss_fn)(params, batch)]
            assert lines(run)[-1]["held_out_by_dataset"][dataset.name] == pytest.approx(sums[0] / sums[1], rel=1e-5)
            total += sums
    assert lines(run)[-1]["held_out_loss"] == pytest.approx(total[0] / total[1], rel=1e-5)


def test_a_branch_that_stops_early_counts_the_tokens_of_the_state_that_it_keeps(finished, tmp_path):
    """At so high a rate the loss soon rises; the token weights of the merge count what the kept state was trained on."""
    changes = {**WATCHED, "train.patience": 1, "train.learning_rate": 0.3, "train.epochs": 3, "train.warmup": 0.0}
    run = world.copied(finished, tmp_path, overwrite=True, **changes)
    for branch in range(4):
        train_branch(run, branch)
    done = finished_branches(run)
    assert any(entry["steps"] < entry["steps_taken"] for entry in done)
    for branch, entry in enumerate(done):
        batches = branch_batches(run, load_partition(run).branches[branch])
        assert entry["tokens"] == batches.supervised[: entry["steps"]].sum()
        losses = {line["step"]: line["held_out_loss"] for line in lines(run, branch) if line["step"]}
        assert min(losses, key=losses.__getitem__) == entry["steps"]
    assert branch_tokens(run, done, "supervised") == [entry["tokens"] for entry in done]


def test_a_resumed_branch_has_the_id_of_its_first_start_and_another_branch_has_another(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    first = track_branch.tracked_run(run, 0)
    assert track_branch.tracked_run(run, 0) == first
    assert track_branch.tracked_run(run, 1).id != first.id
    assert (first.project, first.group, first.name) == ("finished", "finished", "branch-0")
    baseline = run.derive(run.config, type(run.workdir).at(run.workdir.baselines / "joint", run.workdir.shared))
    other = track_branch.tracked_run(baseline, 0)
    assert (other.project, other.group) == ("finished", "finished/baselines/joint")


def test_a_branch_without_held_out_rows_is_refused(finished, tmp_path):
    run = again(finished, tmp_path, **WATCHED)
    bare = tuple(dataset._replace(held_out=()) for dataset in run.datasets)
    run = run.derive(run.config, run.workdir)
    object.__setattr__(run, "shared", run.shared.with_value("datasets", bare))
    with pytest.raises(
        ValueError, match=r"train.held_out_every = 1: none of the branch's datasets .* has held-out rows"
    ):
        train_branch(run, 0)


def test_a_missing_tracker_stops_a_run_that_trains_before_its_first_stage_and_no_other(finished, tmp_path, monkeypatch):
    run = world.copied(finished, tmp_path, **{"train.trackers": ("mlflow",)})
    monkeypatch.setattr(trackers, "TRACKERS", {"mlflow": TrackerKind("no_such_module", "mlflow", Recorded)})
    with pytest.raises(ValueError, match="pip install mlflow"):
        run_stages(run, ("gradients", "train"))
    assert not run_stages(run, ("gradients", "conflict", "partition", "merge"))
