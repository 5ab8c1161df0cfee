"""Weights of datasets and skipped rows in a run: counted in every record, and named where something changes."""

import json
from pathlib import Path

import pytest

from merit_jax.core.types import Branch, DatasetSlice
from merit_jax.data.sampler import BranchExamples
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.stages import run_stages
from merit_jax.planning.workload import DataSize
from merit_jax.reporting.page import write_report
from merit_jax.workdir.artifacts import read_inputs, read_json
from tests.pipeline.test_sites import joined, packed, site
from tests.support import world

pytestmark = pytest.mark.usefixtures("one_device")

WEIGHTS = {"mixture.weights": ("copy=2.5", "u*=0.5")}


def expected(run):
    """Dataset -> (visits, supervised tokens of them), counted one by one."""
    found = {}
    for dataset in run.datasets:
        branch = Branch((DatasetSlice(dataset.name),), 0)
        visits = [int(example.supervised.sum()) for example in BranchExamples(run.datasets, branch, run.config.seed)]
        found[dataset.name] = (len(visits), sum(visits))
    return found


def test_weights_are_counted_in_the_partition_and_in_the_weights_of_the_merge(finished, tmp_path):
    world.beside(finished, tmp_path)
    run = world.run(tmp_path, "weighted", **WEIGHTS, **{"train.epochs": 2.0})
    run_stages(run, ["mixture", "gradients", "conflict", "partition", "train", "merge"])
    counts, plain = expected(run), dict(zip(finished.names, finished.samples, strict=True))
    assert counts["copy"][0] == round(2.5 * plain["copy"])
    assert counts["upper"][0] == round(0.5 * plain["upper"])
    mixture = read_json(run.workdir.mixture)
    assert mixture["inputs"]["weights"] == read_inputs(run.workdir.partition)["weights"] == {"copy": 2.5, "upper": 0.5}
    described = {name: (entry["samples"], entry["tokens"]) for name, entry in mixture["datasets"].items()}
    assert described == counts
    assert {name: entry.get("weight") for name, entry in mixture["datasets"].items() if "weight" in entry} == {
        "copy": 2.5,
        "upper": 0.5,
    }
    partition = load_partition(run)
    for k, branch in enumerate(partition.branches):
        own = [counts[share.dataset] for share in branch.shares]
        assert (partition.samples[k], partition.tokens[k]) == tuple(map(sum, zip(*own, strict=True)))
    tokens = read_json(run.workdir.merge_record)["tokens"]
    assert tokens == [2 * count for count in partition.tokens]


def test_other_weights_are_refused_and_leave_gradients_alone(finished, tmp_path, caplog):
    world.copied(finished, tmp_path)
    weighted = {"mixture.weights": ("copy=2",)}
    with pytest.raises(ValueError, match=r"mixture\.json was made from other inputs.*weights"):
        run_stages(world.run(tmp_path, "finished", **weighted), ["mixture"])
    before = (Path(finished.workdir.gradients) / "index.json").read_bytes()
    run = world.run(tmp_path, "finished", overwrite=True, **weighted)
    run_stages(run, ["mixture", "gradients", "conflict", "partition"])
    assert (Path(run.workdir.gradients) / "index.json").read_bytes() == before
    assert (
        sum(load_partition(run).samples)
        == sum(finished.samples) + dict(zip(finished.names, finished.samples, strict=True))["copy"]
    )
    with pytest.raises(ValueError, match=r"the examples of dataset 'copy' have changed since its gradient was taken"):
        run_stages(world.run(tmp_path, "finished", **{"mixture.weights": ("copy=0.5",)}), ["gradients"])


def test_a_plan_counts_visits(finished, tmp_path):
    from merit_jax.launch.wiring.plan_inputs import PlanInputs

    world.beside(finished, tmp_path)

    def data(**changes) -> DataSize:
        return PlanInputs(world.config(tmp_path, **{"train.batch_size": 1, **changes}), "float32").data(0, 0)

    once, twice = data(), data(**{"mixture.weights": ("*=2",)})
    assert twice.steps == pytest.approx(2 * once.steps, rel=0.1)
    assert (twice.calibration, twice.held_out, twice.datasets) == (once.calibration, once.held_out, once.datasets)


def test_sites_weigh_their_own_datasets_and_the_split_counts_all(finished, tmp_path):
    root = world.beside(finished, tmp_path)
    runs = [site(root, "a", ("copy", "upper"), **WEIGHTS), site(root, "b", ("first", "length"), **WEIGHTS)]
    paths = [packed(run, name) for run, name in zip(runs, "ab", strict=True)]
    whole = joined(root, paths, **WEIGHTS)
    own = {name: count for run in runs for name, (count, _) in expected(run).items()}
    assert dict(zip(whole.names, whole.samples, strict=True)) == own
    assert sum(load_partition(whole).samples) == sum(own.values())
    assert read_inputs(whole.workdir.partition)["weights"] == {"copy": 2.5, "upper": 0.5}
    with pytest.raises(ValueError, match=r"mixture\.weights: 'z=2': no dataset matches 'z'"):
        _ = world.run(
            root, "joined", **{"mixture.elsewhere": True, "mixture.path": "", "mixture.weights": ("z=2",)}
        ).names


@pytest.fixture
def damaged(tmp_path):
    """A world with three rows that cannot be used, in two datasets, one of them held out."""
    world.mixture(tmp_path / "data")
    for name, line in (("copy.train", "{"), ("copy.test", "[1]"), ("upper.train", json.dumps({"inputs": "x"}))):
        with (tmp_path / f"data/{name}.jsonl").open("a") as file:
            file.write(line + "\n")
    return tmp_path


def test_every_skipped_row_is_in_the_record_and_their_numbers_in_card_and_report(damaged):
    with pytest.raises(ValueError, match=r"copy\.train\.jsonl:\d+: not a JSON object"):
        run_stages(world.run(damaged, "stop", "random2"), ["mixture"])
    run = world.run(damaged, "run", "random2", **{"mixture.on_error": "skip"})
    run_stages(run, ["mixture", "partition", "train", "merge", "export"])
    entries = read_json(run.workdir.mixture)["datasets"]
    listed = {
        name: [row["where"].rpartition("/")[2] for row in entry.get("skipped", ())] for name, entry in entries.items()
    }
    assert {name: rows for name, rows in listed.items() if rows} == {
        "copy": ["copy.train.jsonl:13", "copy.test.jsonl:7"],
        "upper": ["upper.train.jsonl:14"],
    }
    assert all(row["reason"] for entry in entries.values() for row in entry.get("skipped", ()))
    record = json.loads((run.workdir.merged_hf / "merit.json").read_text())
    assert record["skipped"] == {"copy": 2, "upper": 1}
    card = (run.workdir.merged_hf / "README.md").read_text()
    assert "* Rows that could not be used and were skipped: 3 (copy 2, upper 1)." in card
    page = write_report(run.workdir, "run").read_text()
    assert "Rows that could not be used and were skipped; mixture.json lists each" in page
    again = world.run(damaged, "run", "random2", **{"mixture.on_error": "skip"})
    assert [d.report.skipped for d in again.datasets] == [d.report.skipped for d in run.datasets]


def test_emitted_rows_leave_skipped_ones_out(damaged):
    from tests.launch.emitting import emitted

    run = emitted.split(damaged, "random2", **{"mixture.on_error": "skip"})
    rows = [row for k in range(2) for part in emitted.rows(emitted.written(run, "trl"), k).values() for row in part]
    assert len(rows) == sum(run.samples)
