"""Diagnostics of a run: what they write, what they cost, and what they make of runs that are not whole."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.data.bucketing import bucketed_batches, calibration_examples
from merit_jax.pipeline import run_diagnostics as module
from merit_jax.pipeline.diagnostics.task import as_json
from merit_jax.pipeline.run_diagnostics import DIAGNOSTICS, run_diagnostics
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.paths import Workdir
from tests.support import world

SMALL = {
    "examples": 2,
    "points": 3,
    "sigmas": (0.01,),
    "draws": 2,
    "grid": 2,
    "calibration_examples": 8,
    "calibration_block": 4,
    "calibration_sizes": (4, 8),
    "bootstrap": 10,
    "sketch_datasets": 3,
    "strides": (5,),
    "widths": (64,),
    "curvature_examples": 2,
    "iterations": 3,
    "eigenvectors": 2,
    "splits": 5,
}
TRAINED = {"displacement", "connectivity", "perturbation", "gain", "surface"}


def small(**changes):
    return {f"diagnostics.{key}": value for key, value in {**SMALL, **changes}.items()}


class Bar:
    """A progress bar that keeps what it is told."""

    made: dict = {}  # noqa: RUF012

    def __init__(self, total, description, unit):
        self.made[description] = self
        self.total, self.done = total, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        self.done += count


@pytest.fixture(scope="module")
def diagnosed(finished, tmp_path_factory):
    """A finished run with joint training beside it and every diagnostic, made with small numbers."""
    run = world.copied(finished, tmp_path_factory.mktemp("diagnosed"), **small())
    joint = run.derive(
        world.config(Path(run.workdir.root).parent, "joint", **small()),
        Workdir.at(run.workdir.baselines / "joint", shared=run.workdir.shared),
    )
    run_stages(joint, ("partition", "train", "merge"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "bar", Bar)
        outcome = run_diagnostics(run)
    assert (outcome.measured, outcome.impossible) == (tuple(DIAGNOSTICS), {})
    return run


def again(diagnosed, folder, **changes):
    """The same run in a copy of its workdir."""
    overwrite = changes.pop("overwrite", False)
    return world.copied(diagnosed, folder, overwrite=overwrite, **small(**changes))


def result(run, name):
    return read_json(run.workdir.diagnostic(name))["result"]


def test_every_artifact_says_what_it_was_made_from_and_how_long_it_took(diagnosed):
    for name in DIAGNOSTICS:
        content = json.loads(diagnosed.workdir.diagnostic(name).read_text())
        assert list(content) == ["inputs", "result", "seconds", "sha256"], name
        assert content["seconds"] >= 0
    assert set(result(diagnosed, "connectivity")) == {"alphas", "paths", "barrier"}


def test_they_go_through_just_as_many_examples_as_they_say(diagnosed):
    for name in DIAGNOSTICS:
        assert Bar.made[name].done == Bar.made[name].total, name
    samples = 2 * len(diagnosed.names)
    assert Bar.made["connectivity"].total == (5 + 10 * 1) * samples
    assert Bar.made["perturbation"].total == 2 * (1 + 2) * samples
    assert Bar.made["displacement"].total == 0


def test_the_ends_of_the_lines_are_the_losses_of_the_models_on_training_examples(diagnosed):
    loss_fn, cfg = jax.jit(diagnosed.loss_fn), diagnosed.config
    examples = [e for d in diagnosed.datasets for e in calibration_examples(d, 2, cfg.seed)]
    rows = [batch for _, batch in bucketed_batches(examples, buckets=(96,), batch_size=8)]
    merged = jax.tree.map(np.asarray, diagnosed.place(OrbaxLeaves(diagnosed.workdir.merged_params)))
    nll, tokens = np.sum([[np.float64(part.sum()) for part in loss_fn(merged, b)] for b in rows], axis=0)
    paths = result(diagnosed, "connectivity")["paths"]
    ends = {path["end"]: path["losses"][-1] for path in paths}
    assert len(paths) == 10
    assert ends["merged"] == pytest.approx(nll / tokens, rel=1e-5)
    assert result(diagnosed, "gain")["merged_loss"] == pytest.approx(nll / tokens, rel=1e-4)
    assert result(diagnosed, "perturbation")["models"][0]["loss"] == pytest.approx(nll / tokens, rel=1e-5)


def test_displacements_are_those_of_the_merge_and_of_the_end_of_training(diagnosed):
    found, record = result(diagnosed, "displacement"), read_json(diagnosed.workdir.merge_record)["displacement"]
    assert found["names"] == ["branch 0", "branch 1", "branch 2", "branch 3", "merged", "joint"]
    np.testing.assert_allclose(found["distances"][:5], [*record["branches"], record["merged"]], rtol=1e-6)
    assert found["parallel_axis"]["residual"] == pytest.approx(0, abs=1e-5)
    at = dict(zip(found["names"], found["distances"], strict=True))
    assert [line["name"] for line in found["trajectories"]] == [*found["names"][:4], "joint"]
    for line in found["trajectories"]:
        assert line["distances"][-1] == pytest.approx(at[line["name"]], rel=1e-3)
        assert line["epochs"][-1] == pytest.approx(1.0)
    assert found["joint_over_merged"] == pytest.approx(at["joint"] / at["merged"])


def test_the_surface_passes_through_the_merged_model(diagnosed):
    found, distance = result(diagnosed, "surface"), result(diagnosed, "displacement")["distances"]
    np.testing.assert_allclose(found["places"][-1], [distance[4], 0], rtol=1e-4, atol=1e-5)
    lengths = np.hypot(np.linalg.norm(found["places"], axis=1), found["off"])
    np.testing.assert_allclose(lengths, distance[:5], rtol=1e-3)


def test_the_gain_is_mean_branch_loss_less_merged_loss_on_the_lines(diagnosed):
    found, paths = result(diagnosed, "gain"), result(diagnosed, "connectivity")["paths"]
    losses = {path["start"]: path["losses"][0] for path in paths}
    np.testing.assert_allclose(found["branch_losses"], [losses[f"branch {k}"] for k in range(4)], rtol=1e-4)
    assert found["obtained"] == pytest.approx(found["mean_branch_loss"] - found["merged_loss"], abs=1e-6)


def test_a_second_time_nothing_is_measured_and_no_weights_are_loaded(diagnosed, tmp_path, monkeypatch):
    run = again(diagnosed, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in Path(run.workdir.root).rglob("*")}
    monkeypatch.setattr("merit_jax.core.sharding.place", None)
    assert run_diagnostics(run).current == tuple(DIAGNOSTICS)
    assert {path: path.stat().st_mtime_ns for path in Path(run.workdir.root).rglob("*")} == before


def test_what_is_interrupted_is_made_again_and_the_rest_kept(diagnosed, tmp_path, monkeypatch):
    run = again(diagnosed, tmp_path)
    for name in ("displacement", "gradient_norms"):
        run.workdir.diagnostic(name).unlink()
    task = DIAGNOSTICS["displacement"](run)

    def interrupted(tick):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(DIAGNOSTICS, "displacement", lambda run: task._replace(measure=interrupted))
        with pytest.raises(KeyboardInterrupt):
            run_diagnostics(run)
    assert run.workdir.diagnostic("gradient_norms").exists()
    assert not run.workdir.diagnostic("displacement").exists()
    assert run_diagnostics(run).measured == ("displacement",)
    assert not [path for path in run.workdir.diagnostic("x").parent.iterdir() if "tmp" in path.name]


def test_a_half_finished_run_says_what_is_missing_and_which_command_makes_it(diagnosed, tmp_path):
    run = again(diagnosed, tmp_path)
    run.workdir.branch_done(2).unlink()
    outcome = run_diagnostics(run)
    assert set(outcome.impossible) == TRAINED
    assert set(outcome.current) == set(DIAGNOSTICS) - TRAINED
    said = outcome.impossible["connectivity"]
    assert all(part in said for part in ("branches 2 of 4", "merit run --stages=train", "merit branch --branch=2"))
    with pytest.raises(ValueError, match="gain: branches 2 of 4 are not finished"):
        run_diagnostics(run, ["sketch", "gain"])


@pytest.mark.parametrize(
    ("gone", "name", "command"),
    [
        ("merged", "connectivity", "--stages=merge"),
        ("conflict.npz", "curvature", "--stages=gradients,conflict"),
        ("partition.json", "split_gain", "--stages=mixture,gradients,conflict,partition"),
        ("gradients", "gradient_norms", "--stages=gradients"),
    ],
)
def test_what_is_missing_names_its_stage(diagnosed, tmp_path, gone, name, command):
    run = again(diagnosed, tmp_path)
    path = Path(run.workdir.root / gone)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match=f"{name}: .*{command}"):
        run_diagnostics(run, [name])


def test_an_unknown_name_lists_the_known_ones(diagnosed):
    with pytest.raises(ValueError, match=r"unknown diagnostic 'nonsense'; known: calibration, connectivity"):
        run_diagnostics(diagnosed, ["gain", "nonsense"])


@pytest.mark.parametrize("name", ["sketch", "calibration"])
def test_a_result_of_former_coordinates_is_refused(diagnosed, tmp_path, name):
    run = again(diagnosed, tmp_path)
    path = run.workdir.root / "diagnostics" / f"{name}.json"
    content = read_json(path)
    del content["inputs"]["coordinates"]
    write_json(path, content)
    with pytest.raises(ValueError, match=rf"{name}\.json was made from other inputs: coordinates: nothing -> "):
        run_diagnostics(run, [name])


def test_a_changed_key_is_named_and_overwrite_measures_again(diagnosed, tmp_path):
    with pytest.raises(
        ValueError, match=r"perturbation\.json was made from other inputs: sigmas: \[0\.01\] -> \[0\.02\]"
    ):
        run_diagnostics(again(diagnosed, tmp_path, sigmas=(0.02,)), ["perturbation"])
    run = again(diagnosed, tmp_path, sigmas=(0.02,), overwrite=True)
    assert run_diagnostics(run, ["perturbation", "connectivity"]).measured == ("perturbation",)
    assert result(run, "perturbation")["sigmas"] == [0.02]


def test_the_predicted_gain_weighs_branches_as_the_run_merges_them(diagnosed, tmp_path):
    run = again(diagnosed, tmp_path)
    found = {}
    for method, options in (
        ("token_weighted", "{}"),
        ("uniform", "{}"),
        ("task_arithmetic", '{"scale": 0.25}'),
        ("ties", "{}"),
    ):
        with run.config.unlocked():
            run.config.merge.method, run.config.merge.options = method, options
        found[method] = DIAGNOSTICS["split_gain"](run).inputs["weights"]
    quarters = [0.25] * 4
    assert found == {
        "token_weighted": "supervised",
        "uniform": quarters,
        "task_arithmetic": quarters,
        "ties": "supervised",
    }
    assert [sum(run.all_tokens), run.tokens < run.all_tokens] == [
        sum(len(example.tokens) - 1 for dataset in run.datasets for example in dataset.train),
        True,
    ]


def test_one_branch_has_nothing_to_connect(diagnosed):
    joint = diagnosed.derive(
        world.config(Path(diagnosed.workdir.root).parent, "joint", **small()),
        Workdir.at(diagnosed.workdir.baselines / "joint", shared=diagnosed.workdir.shared),
    )
    for name in ("connectivity", "surface", "gain"):
        with pytest.raises(ValueError, match=f"{name}: 2 branches are needed, and partition.groups = 1"):
            run_diagnostics(joint, [name])


def test_a_joint_run_from_another_theta0_is_refused(diagnosed, tmp_path):
    run = again(diagnosed, tmp_path, overwrite=True)
    path = run.workdir.baselines / "joint" / "merged" / "merge.json"
    record = read_json(path)
    record["inputs"]["theta0"] = "another"
    write_json(path, record)
    with pytest.raises(ValueError, match="starts from another theta0"):
        run_diagnostics(run, ["displacement"])


def test_what_is_not_finite_is_null_in_json():
    assert as_json((float("nan"), np.array([1.0, np.inf]), (np.float32(2), "x", None))) == [
        None,
        [1.0, None],
        [2.0, "x", None],
    ]
