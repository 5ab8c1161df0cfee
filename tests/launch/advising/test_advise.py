"""Advice on the tiny world: what is measured, what is reused, and what the page says with and without a map."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from merit_jax.advice.map_forecast import fit_map
from merit_jax.launch.advising import advise as module
from merit_jax.launch.advising.advise import Question, advise
from merit_jax.launch.advising.candidates import configs_of, default_methods, measure_candidates
from merit_jax.launch.advising.pilot import check_pilot
from merit_jax.launch.experiments.runner import Experiment, run_experiment
from merit_jax.launch.wiring import open_run
from merit_jax.pipeline import estimate_gradients, run_diagnostics
from merit_jax.pipeline.measure_mixture import measure_mixture
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.stages import run_stages
from merit_jax.planning.topology import parse_topology
from merit_jax.workdir.artifacts import read_json
from tests.support import world
from tests.support.maps import map_of

SMALL = {
    "diagnostics.examples": 4,
    "diagnostics.calibration_examples": 8,
    "diagnostics.calibration_block": 2,
    "diagnostics.calibration_sizes": (2, 4),
    "diagnostics.bootstrap": 10,
}
METHODS = ("joint", "examples4", "random4", "merit2d", "merit2d:partition.core=0.25")


@pytest.fixture(scope="module")
def advised(finished, tmp_path_factory):
    """A run in which advice has been asked for once, and the first page."""
    root = world.beside(finished, tmp_path_factory.mktemp("advised"))
    run = world.run(root, "run", **SMALL)
    return run, advise(run, run.config, Question(METHODS, None))


@pytest.fixture(scope="module")
def map_here(advised):
    """A forecast from a map whose mixtures are like the run's, where slices lose and a core wins."""
    here = read_json(advised[0].workdir.advice)["features"]
    plain = {name: here[name] for name in ("axes", "reliability", "loss")}
    counts = {name: round(2 ** here[name]) for name in ("steps", "datasets", "parameters")}

    def law(shared, features):
        return -8.0 if features["coreless"] or not features["by_dataset"] else 6.0

    cells = map_of(law, noise=0.5, **plain, **counts)
    for cell in cells:
        for measured in cell["measured"].values():
            measured["mixture"]["shared"] += here["shared"] - 0.175
            measured["mixture"]["passes"] = here["passes"]
    return fit_map(cells)


def content(run):
    return json.loads(run.workdir.advice.read_text())


def nothing_is_computed(*_, **__):
    raise AssertionError("it was there already")


def test_without_a_map_there_are_measurements_and_no_number(advised):
    run, page = advised
    found = content(run)
    assert "no fitted map" in page
    assert "±" not in page.split("## What the gradients say")[0]
    assert (found["forecasts"], found["recommendation"], found["outside"]) == ({}, None, [])
    assert run.workdir.advice.with_suffix(".md").read_text() == page
    assert list(found["measurements"]["datasets"]) == run.names


def test_reliabilities_are_those_of_the_examples_that_the_gradients_are_of(advised):
    run, _ = advised
    measured = read_json(run.workdir.measurements)
    calibrated = {row["name"]: row for row in read_json(run.workdir.diagnostic("calibration"))["result"]["datasets"]}
    for name, row in measured["datasets"].items():
        rho, half = calibrated[name]["reliability"], calibrated[name]["examples"] / 2
        factor = row["calibration"] / half
        assert row["reliability"] == pytest.approx(factor * rho / (1 + (factor - 1) * rho))
        assert row["needed"] == pytest.approx(half * 0.9 * (1 - rho) / (rho * 0.1))
    assert measured["shared"] > measured["estimated"] > 0
    assert measured["loss"] == pytest.approx(np.log(run.model.config.vocab_size), abs=1)


def test_weak_directions_are_named_with_the_examples_that_would_do(advised):
    run, page = advised
    rows = read_json(run.workdir.measurements)["datasets"]
    weak = {name for name, row in rows.items() if row["reliability"] < 0.9}
    assert 0 < len(weak) < len(rows)
    assert f"**{len(weak)} of {len(rows)} datasets are below 0.9**" in page
    enough = [rows[n]["needed"] for n in weak if rows[n]["needed"] <= rows[n]["examples"]]
    assert f"`--config.gradients.examples={int(max(enough)) + 1}` would do for {len(enough)} of them" in page
    assert f"{len(weak) - len(enough)} have fewer examples" in page


def test_a_method_is_measured_on_the_partition_that_it_would_train(advised, tmp_path):
    run, _ = advised
    found = content(run)["candidates"]
    assert list(found) == list(METHODS)
    assert all(sum(found[name]["tokens"]) == sum(run.tokens) for name in METHODS)
    assert found["examples4"]["agreement"] == pytest.approx(1, abs=0.05)
    assert found["merit2d"]["agreement"] < found["merit2d:partition.core=0.25"]["agreement"] < 1
    other = world.copied(run, tmp_path, **SMALL)
    run_stages(other, ("partition",))
    assert found["merit2d"]["tokens"] == [pytest.approx(tokens, abs=2) for tokens in load_partition(other).tokens]
    assert not run.workdir.partition.exists()


def test_asked_again_everything_is_reused_and_a_later_run_reuses_the_gradients(advised, monkeypatch):
    run, page = advised
    monkeypatch.setattr(estimate_gradients, "gradient_rows", nothing_is_computed)
    monkeypatch.setattr(run_diagnostics, "_measure", nothing_is_computed)
    monkeypatch.setattr("merit_jax.pipeline.measure_mixture.mean_loss", nothing_is_computed)
    assert advise(run, run.config, Question(METHODS, None)) == page
    run_stages(run, ("gradients", "conflict"))
    changed = world.run(Path(run.workdir.root).parent, "run", **{**SMALL, "diagnostics.examples": 3})
    with pytest.raises(ValueError, match=r"measurements\.json was made from other inputs: loss\.examples: 4 -> 3"):
        measure_mixture(changed)


def test_a_seed_of_an_experiment_is_measured_from_the_gradients_that_it_has(finished, tmp_path, monkeypatch):
    root = world.beside(finished, tmp_path)
    config = world.config(root, **SMALL)
    methods = ("joint", "merit1d")
    run_experiment(config, root / "cell", Experiment(methods, (), (0,)), overwrite=False)
    monkeypatch.setattr(estimate_gradients, "gradient_rows", nothing_is_computed)
    run = open_run.open_run(config, root / "cell" / "seed-0")
    advise(run, config, Question(methods, None))
    found = content(run)["candidates"]
    for method in methods:
        merged = json.loads((root / "cell" / "seed-0" / "methods" / method / "merged" / "merge.json").read_text())
        assert found[method]["tokens"] == merged["tokens"]


def test_inside_a_map_the_best_method_is_recommended_with_its_uncertainty(advised, map_here):
    run, _ = advised
    page = advise(run, run.config, Question(METHODS, map_here))
    found = content(run)
    assert found["recommendation"] == {
        "method": "merit2d:partition.core=0.25",
        "reason": "apart_better",
        "best": "merit2d:partition.core=0.25",
    }
    assert page.splitlines()[2].startswith("**Train with `merit2d:partition.core=0.25`**: it is expected to be better")
    forecast = found["forecasts"]["interpolated_skill"]["merit2d:partition.core=0.25"]
    assert forecast["mean"] == pytest.approx(6, abs=1.5)
    assert f"{forecast['mean']:+.1f} ± {1.96 * forecast['std']:.1f}" in page
    assert "rank correlation" in page


def test_a_forecast_that_could_not_be_tried_says_so(advised, map_here):
    run, _ = advised
    untried = {name: law._replace(held_out=None) for name, law in map_here.laws.items()}
    page = advise(run, run.config, Question(METHODS, map_here._replace(laws=untried)))
    assert "fewer than three worlds" in page
    assert "rank correlation" not in page


def test_where_joint_training_is_better_it_is_recommended(advised, map_here):
    run, _ = advised
    page = advise(run, run.config, Question(("joint", "examples4", "random4"), map_here))
    assert content(run)["recommendation"]["reason"] == "joint_better"
    assert "**Train with `joint`**: joint training is expected to be better than every way" in page


def test_outside_a_map_no_number_is_given(advised):
    run, _ = advised
    page = advise(run, run.config, Question(METHODS, fit_map(map_of(lambda shared, features: 5.0))))
    found = content(run)
    assert (found["forecasts"], found["recommendation"]) == ({}, None)
    assert "unlike those of the map" in page
    assert "* trained parameters: " in page
    assert "±" not in page.split("## What the gradients say")[0]


def test_costs_are_those_of_the_steps(advised):
    run, _ = advised
    question = Question(METHODS, None, topology=parse_topology("h100:8"), price=2.0)
    page = advise(run, run.config, question)
    found = content(run)
    costs, steps = found["costs"], {name: row["steps"] for name, row in found["candidates"].items()}
    joint, slices = costs["joint"], costs["examples4"]
    assert slices["seconds"] / joint["seconds"] == pytest.approx(max(steps["examples4"]) / sum(steps["joint"]), rel=0.1)
    assert joint["dollars"] == pytest.approx(2 * joint["chip_hours"])
    assert (joint["slices"], slices["slices"], joint["traffic"]) == (1, 4, 0)
    assert costs["merit2d"]["chip_hours"] > costs["random4"]["chip_hours"]
    assert "one such slice" in page


def test_a_pilot_trains_every_method_and_measures_its_merge(advised, map_here, monkeypatch):
    run, _ = advised
    monkeypatch.setattr("merit_jax.launch.advising.pilot.STEPS", 1)
    question = Question(("joint", "examples4", "merit2d"), map_here, pilot=0.5)
    page = advise(run, run.config, question)
    found = content(run)
    assert set(found["pilot"]) == {"joint", "examples4", "merit2d"}
    assert found["pilot"]["joint"]["cosine"] is None
    assert -1 <= found["pilot"]["merit2d"]["cosine"] <= 1
    losses = {name: row["loss"] for name, row in found["pilot"].items()}
    assert losses["joint"] < read_json(run.workdir.measurements)["loss"]
    features = found["candidates"]["merit2d"]["features"]
    assert features["pilot_loss"] == pytest.approx(losses["merit2d"] - losses["joint"])
    assert features["pilot_gap"] == pytest.approx(1 - found["pilot"]["merit2d"]["cosine"])
    assert "The map has no pilots" in page
    done = read_json(run.workdir.pilot(0.5) / "methods" / "joint" / "branches" / "0" / "done.json")
    assert done["tokens"] < 0.7 * sum(run.tokens)
    monkeypatch.setattr("merit_jax.pipeline.measure_pilot.mean_loss", nothing_is_computed)
    assert advise(run, run.config, question) == page


def test_a_pilot_that_hardly_trains_is_refused(advised):
    run, _ = advised
    candidates = measure_candidates(run, measure_mixture(run), configs_of(run.config, METHODS)).measured
    with pytest.raises(ValueError, match=r"--pilot=0\.03: the shortest branch of .* leave it out"):
        check_pilot(0.03, candidates)


def test_a_mixture_of_too_few_datasets_for_a_split_says_so(advised):
    run, _ = advised
    found = measure_candidates(run, measure_mixture(run), configs_of(run.config, ["examples8", "random8", "merit3d"]))
    assert list(found.measured) == ["joint", "examples8"]
    assert found.impossible == dict.fromkeys(("random8", "merit3d"), "6 datasets cannot fill 8 branches")


def test_methods_that_the_advice_is_not_about_are_refused(advised):
    for method in ("soup2", "wise", "merit2d:merge.method=ties", "merit2d:rounds.count=2"):
        with pytest.raises(ValueError, match="copies of the data, another merge or rounds"):
            configs_of(advised[0].config, [method])


def test_splits_that_the_map_has_not_measured_are_refused_and_the_configs_own_left_out(advised):
    for method in ("merit2d:partition.softness=0.5", "random2:partition.core_datasets=('*',)", "curvature1d"):
        with pytest.raises(ValueError, match="in a way that the map has not measured"):
            configs_of(advised[0].config, [method])
    config = copy.deepcopy(advised[0].config).unlock()
    config.partition.update({"core_datasets": ("copy",), "softness": 0.2, "like": "elsewhere"})
    partition = configs_of(config, ["random2"])["random2"].partition
    assert (partition.core_datasets, partition.softness, partition.like) == ((), 0.0, "")


def test_a_config_with_a_core_compares_methods_without_one():
    assert default_methods([3]) == ["joint", "examples3", "random3", "random3:partition.core=0.25"]
    assert "merit2d:partition.core=0.25" in default_methods([4])


def test_the_core_of_the_config_is_not_that_of_the_candidates(advised):
    run, _ = advised
    config = world.config(
        Path(run.workdir.root).parent,
        **SMALL,
        **{"partition.core": 0.5, "merge.search_evaluations": 9, "rounds.count": 3},
    )
    found = configs_of(config, METHODS)
    cores = {spec: one.partition.core for spec, one in found.items()}
    assert {(one.merge.search_evaluations, one.rounds.count) for one in found.values()} == {(0, 1)}
    assert cores == {**dict.fromkeys(METHODS, 0.0), "merit2d:partition.core=0.25": 0.25}


def test_values_that_are_not_finite_are_null_in_the_file():
    assert module.as_json_tree({"a": {"b": float("nan")}, "c": (1, float("inf"))}) == {"a": {"b": None}, "c": [1, None]}
