"""An experiment in the tiny world: what it shares, that it resumes, and that its tables are what its artifacts say."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.comparison.styles import MARKDOWN
from merit_jax.configs import common
from merit_jax.core import sharding
from merit_jax.launch.console.exit_codes import MISTAKE
from merit_jax.launch.experiments import methods, runner
from merit_jax.launch.experiments.read_results import training_seconds
from merit_jax.pipeline import train_branches
from merit_jax.workdir.artifacts import write_json
from tests.launch.test_commands import commands
from tests.launch.test_commands import config as config_file
from tests.pipeline.test_baselines import SUITES, suites
from tests.support import world

pytestmark = pytest.mark.usefixtures("one_device")

LISTED = ("joint", "soup2", "random2", "merit1d", "merit1d:merge.method=uniform", "wise")
EXPERIMENT = runner.Experiment((*runner.repeat_random_splits(LISTED, 2),), (), (0, 1), ("gain",))


def config(root, **changes):
    given = {
        "mixture.max_held_out": 2,
        "evaluate.suites": str(root / "suites" / "*.jsonl"),
        "evaluate.max_suite_records": 10,
        "diagnostics.examples": 2,
        "evaluate.retained": ("old_*",),
        "frontier.scales": (1.0, 8.0),
        "frontier.max_records": 8,
    }
    return world.config(root, "merit1d", **{**given, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory, compiled, one_device):
    """(folder of the world, root of the finished experiment, its results); not to be written to."""
    folder = tmp_path_factory.mktemp("experiment")
    suites(folder / "suites")
    found = runner.run_experiment(config(folder), folder / "root", EXPERIMENT, overwrite=False)
    return folder, folder / "root", found


def method(root, spec, seed=0):
    """A method's workdir."""
    return root / f"seed-{seed}" / "methods" / spec.replace(":", ",")


def read(path):
    return json.loads(Path(path).read_text())


def branch(root, spec, k, seed=0):
    return world.host(OrbaxLeaves(params_directory(method(root, spec, seed) / "branches" / str(k) / "checkpoints")))


def test_theta0_gradients_and_similarities_are_shared_by_the_methods_of_a_seed(done):
    _, root, _ = done
    for seed in (0, 1):
        assert (root / f"seed-{seed}" / "conflict.npz").exists()
        shared = {path.name for path in method(root, "merit1d", seed).iterdir()}
        assert shared == {"mixture.json", "partition.json", "branches", "merged", "times.json", "diagnostics"}
    own = {path.name for path in method(root, "merit1d:merge.method=uniform").iterdir()}
    assert own == {"merged", "times.json", "diagnostics"}


def test_the_gain_of_every_merge_is_measured(done):
    _, root, _ = done
    found = read(root / "gains.json")
    merges = ["soup2", "random2", "random2:partition.seed=1", "merit1d", "merit1d:merge.method=uniform"]
    assert [(gain["seed"], gain["method"]) for gain in found["gains"]] == [(s, m) for s in (0, 1) for m in merges]
    for gain in found["gains"]:
        own = read(method(root, gain["method"], gain["seed"]) / "diagnostics" / "gain.json")["result"]
        assert (gain["obtained"], gain["merged"]) == (own["obtained"], own["merged_loss"])
        assert gain["obtained"] == pytest.approx(gain["branches"] - gain["merged"])
    assert -1 <= found["obtained with predicted"]["all"]["spearman"] <= 1
    assert (root / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_diagnostic_is_refused_before_anything_is_done(tmp_path):
    experiment = EXPERIMENT._replace(diagnostics=("gains",))
    with pytest.raises(ValueError, match="unknown --diagnose 'gains'; known: calibration"):
        runner.run_experiment(config(tmp_path), tmp_path / "root", experiment, overwrite=False)
    assert not (tmp_path / "root").exists()


def test_a_soup_has_the_joint_run_in_it_and_another_order_next_to_it(done):
    _, root, _ = done
    joint, first, second = branch(root, "joint", 0), branch(root, "soup2", 0), branch(root, "soup2", 1)
    assert all(first[path].tobytes() == joint[path].tobytes() for path in joint)
    assert any(second[path].tobytes() != joint[path].tobytes() for path in joint)
    files = [method(root, spec) / "branches" / "0" / "done.json" for spec in ("joint", "soup2")]
    assert files[0].samefile(files[1]), "it was trained once"


def test_every_method_trains_on_the_common_budget_and_a_soup_on_twice_that(done):
    _, root, results = done
    whole = sum(dataset["tokens"] for dataset in read(method(root, "joint") / "mixture.json")["datasets"].values())
    for name, result in results.items():
        expected = {"theta0": 0, "soup2": 2 * whole}.get(name, whole)
        assert {run.tokens for run in result.outcomes} == {expected}, name


def test_the_order_of_the_data_changes_with_the_seed(done):
    _, root, _ = done
    one, other = (branch(root, "joint", 0, seed) for seed in (0, 1))
    assert any(one[path].tobytes() != other[path].tobytes() for path in one)


def test_random_partitions_are_one_method_and_differ_from_each_other(done):
    _, root, results = done
    assert list(results) == ["theta0", *LISTED]
    assert len(results["random2"].outcomes) == 4
    assert {run.variant for run in results["random2"].outcomes} == {"random2", "random2:partition.seed=1"}
    plans = [
        tuple(
            tuple(share[0] for share in row["shares"])
            for row in read(method(root, spec, seed) / "partition.json")["branches"]
        )
        for seed in (0, 1)
        for spec in ("random2", "random2:partition.seed=1")
    ]
    assert len(set(plans)) > 2


def test_results_are_what_the_evaluations_say(done):
    _, root, _ = done
    content = read(root / "results.json")
    models = [read(root / f"seed-{seed}" / "evaluation.json")["models"] for seed in (0, 1)]
    lines = [read(root / f"seed-{seed}" / "frontier.json")["models"] for seed in (0, 1)]
    for name in ("theta0", *LISTED):
        found = content["methods"][name]
        specs = [name, "random2:partition.seed=1"] if name == "random2" else [name]
        accuracies = np.array(
            [
                [[model[spec]["suites"][suite]["accuracy"] for suite in sorted(SUITES)] for spec in specs]
                for model in models
            ]
        ).mean(axis=1)
        for suite, values in zip(sorted(SUITES), accuracies.T, strict=True):
            assert found["scores"][suite]["mean"] == pytest.approx(values.mean())
            assert found["scores"][suite]["std"] == pytest.approx(values.std(ddof=1))
            assert (found["scores"][suite]["n"], found["scores"][suite]["runs"]) == (2, 2 * len(specs))
        assert found["mean"]["mean"] == pytest.approx(accuracies.mean())
        old = [suite.startswith("old") for suite in sorted(SUITES)]
        assert found["retained"]["mean"] == pytest.approx(accuracies[:, old].mean())
        kept = [line[spec]["kept"] for line in lines for spec in specs if spec in line]
        for key, part in {"kept_skill": "skill", "kept_retained": "retained"}.items():
            expected = pytest.approx(np.mean([one[part] for one in kept])) if kept else None
            assert (found[key] or {"mean": None})["mean"] == expected
        assert found["kept_scales"] == [one["scale"] for one in kept]
    merit, random = ([m[s]["suites_mean"]["accuracy"] for m in models] for s in ("merit1d", "random2"))
    others = [m["random2:partition.seed=1"]["suites_mean"]["accuracy"] for m in models]
    expected = np.mean(merit) - np.mean([random, others])
    assert content["methods"]["merit1d"]["tests"]["random"]["difference"] == pytest.approx(expected)
    assert content["methods"]["merit1d"]["tests"]["random"]["n"] == 2
    assert content["methods"]["soup2"]["tests"]["random"]["n"] == 2
    assert content["methods"]["wise"]["kept_skill"] is None


def test_answers_give_the_scores_and_differences_have_intervals(done):
    _, root, results = done
    for result in results.values():
        for run in result.outcomes:
            assert run.scores == pytest.approx({suite: np.mean([*one.values()]) for suite, one in run.answers.items()})
            if run.kept_scale is not None:
                kept = run.kept_skill_answers()
                assert set(kept) == {"new_word", "new_letter"}
                assert np.mean([np.mean([*one.values()]) for one in kept.values()]) == pytest.approx(run.kept_skill)
    test = results["merit1d"].tests["random"]
    assert test.interval.low <= test.difference <= test.interval.high
    assert read(root / "results.json")["tests"]["number"] == sum(len(result.tests) for result in results.values())
    assert "the reporting half of each suite" in (root / "results.md").read_text()


def test_times_are_those_of_branches_and_of_gradients_where_they_are_used(done):
    _, root, results = done
    times = {
        spec: sum(read(path)["seconds"] for path in (method(root, spec) / "branches").glob("*/done.json"))
        for spec in ("joint", "soup2", "merit1d")
    }
    seconds = {name: result.outcomes[0].seconds for name, result in results.items()}
    assert seconds["joint"] == seconds["wise"] == pytest.approx(times["joint"])
    assert seconds["soup2"] == pytest.approx(times["soup2"])
    stages = read(method(root, "merit1d") / "times.json")
    expected = times["merit1d"] + stages["gradients"] + stages["conflict"]
    assert seconds["merit1d"] == seconds["merit1d:merge.method=uniform"] == pytest.approx(expected)


def test_products_of_the_curvature_count_where_they_are_used(tmp_path):
    listed = ["joint", "merit1d", "curvature1d"]
    comparison = methods.plan_comparison(common.get_config(), listed, epath.Path(tmp_path))
    for spec in listed:
        write_json(epath.Path(tmp_path / spec / "branches" / "0" / "done.json"), {"seconds": 100.0})
    write_json(epath.Path(tmp_path / "merit1d" / "times.json"), {"gradients": 10.0, "conflict": 1.0})
    write_json(epath.Path(tmp_path / "curvature1d" / "times.json"), {"curvature": 1000.0, "partition": 5.0})
    assert [training_seconds(comparison, spec) for spec in listed] == [100, 111, 1111]


def test_tables_are_written_next_to_the_results(done):
    _, root, _ = done
    assert {path.name for path in root.iterdir()} >= {"config.json", "results.json", "results.md", "results.tex"}
    text = re.sub(" +", " ", (root / "results.md").read_text())
    for name in LISTED:
        assert f"| {MARKDOWN.escape(name)} |" in text
    assert "(n = 2)" in text


def test_a_finished_experiment_trains_loads_and_asks_nothing(done, monkeypatch, tmp_path):
    folder, root, results = done
    before = {path: path.stat().st_mtime_ns for path in root.glob("seed-*/**/*") if path.is_file()}
    monkeypatch.setattr(sharding, "load", None)
    monkeypatch.setattr(train_branches, "fine_tune", None)
    again = runner.run_experiment(config(folder), root, EXPERIMENT, overwrite=False)
    assert again == results
    assert {path: path.stat().st_mtime_ns for path in root.glob("seed-*/**/*") if path.is_file()} == before


def test_another_comparison_of_the_same_branches_has_its_results_in_a_folder(done, monkeypatch):
    folder, root, _ = done
    before = (root / "results.md").read_text()
    monkeypatch.setattr(train_branches, "fine_tune", None)
    few = EXPERIMENT._replace(methods=("merit1d", "joint"), controls=(), diagnostics=(), tables="few")
    runner.run_experiment(config(folder), root, few, overwrite=False)
    assert list(read(root / "few" / "results.json")["methods"]) == ["theta0", "merit1d", "joint"]
    assert (root / "results.md").read_text() == before


class StoppedError(Exception):
    pass


def test_an_experiment_that_is_stopped_between_methods_ends_with_the_same_results(done, monkeypatch, tmp_path):
    folder, _, results = done
    trained, original = [], methods._train

    def fragile(run, others):
        if len(trained) == 2:
            raise StoppedError
        trained.append(run.config.method)
        return original(run, others)

    one_seed = EXPERIMENT._replace(seeds=(0,), diagnostics=())
    monkeypatch.setattr(methods, "_train", fragile)
    with pytest.raises(StoppedError):
        runner.run_experiment(config(folder), tmp_path / "root", one_seed, overwrite=False)
    assert not (tmp_path / "root" / "results.json").exists()
    monkeypatch.setattr(methods, "_train", original)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("done.json")}
    assert len(before) == 3, "joint, and the soup's two"
    again = runner.run_experiment(config(folder), tmp_path / "root", one_seed, overwrite=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for name, result in again.items():
        expected = [run for run in results[name].outcomes if run.seed == 0]
        for ours, theirs in zip(result.outcomes, expected, strict=True):
            assert ours._replace(seconds=0) == theirs._replace(seconds=0), name


def test_unequal_budgets_are_refused_before_anything_is_done(done, tmp_path):
    folder, _, _ = done
    listed = runner.Experiment(("joint", "merit1d:train.epochs=2"), (), (0,))
    with pytest.raises(ValueError, match=r"1 for joint; 2 for merit1d:train\.epochs=2"):
        runner.run_experiment(config(folder), tmp_path / "root", listed, overwrite=False)
    assert not (tmp_path / "root").exists()


def test_a_split_that_cannot_be_made_is_refused_before_any_training(done, monkeypatch, tmp_path):
    folder, _, _ = done
    monkeypatch.setattr(train_branches, "fine_tune", None)
    listed = runner.Experiment(("joint", "random8"), (), (0,))
    with pytest.raises(ValueError, match="cannot make 8 non-empty groups of 6 datasets"):
        runner.run_experiment(config(folder), tmp_path / "root", listed, overwrite=False)


def test_an_experiment_with_other_settings_is_refused(done, tmp_path):
    folder, root, _ = done
    shutil.copytree(root, tmp_path / "root")
    with pytest.raises(ValueError, match=r"train\.learning_rate: 0\.001 -> 0\.01"):
        runner.run_experiment(
            config(folder, **{"train.learning_rate": 1e-2}), tmp_path / "root", EXPERIMENT, overwrite=False
        )


def test_a_mistake_is_one_line_that_names_it(finished, tmp_path):
    given = [config_file(finished, tmp_path), "--root=new"]
    mistakes = {
        "--seeds=0,x: expected different whole numbers": ["--seeds=0,x"],
        "--seeds=1,1: expected": ["--seeds=1,1"],
        "--tables=seed-1: expected one name": ["--tables=seed-1"],
        "unknown method 'nonsense'": ["--methods=joint,nonsense"],
        "1 for joint; 2 for random2:train.epochs=2": ["--methods=joint,random2:train.epochs=2"],
        "cannot override 'model.path'": ["--methods=joint", "--controls=random2:model.path=x"],
    }
    results = commands(tmp_path, "experiment", [[*given, *line] for line in mistakes.values()])
    for mistake, (code, _, error) in zip(mistakes, results, strict=True):
        assert code == MISTAKE, error
        assert mistake in error
        assert "Traceback" not in error
    assert not (tmp_path / "new").exists()
