"""Baselines beside a run: what they share with it, what they are, and how all are compared on suites."""

import dataclasses
import importlib
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.configs.common import variant
from merit_jax.core import tree
from merit_jax.data.bucketing import calibration_examples
from merit_jax.data.packing import RowCapacity, fill_row, stack
from merit_jax.evaluation.questions import question_ids
from merit_jax.evaluation.suites import draw_records, kinds, load_suites
from merit_jax.launch.experiments import methods
from merit_jax.launch.experiments import run_config as command
from merit_jax.pipeline.evaluate_models import evaluate_models
from merit_jax.pipeline.evaluated_models import evaluated_models
from merit_jax.pipeline.evaluators import SuiteScorer, make_evaluator
from merit_jax.pipeline.trace_frontier import trace_frontier
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir
from tests.support import world

BASELINES = ("joint:train.epochs=2,train.weight_decay=0.1", "wise", "merit1d")
SCALES = (0.5, 1.0, 8.0)
SUITES = {"old_word": "say", "old_letter": "first letter of", "new_word": "shout", "new_letter": "last letter of"}


def suites(folder):
    """Multiple choice among four random words, 40 records a suite."""
    folder.mkdir()
    rng = random.Random(0)
    for name, ask in SUITES.items():
        rows = []
        for _ in range(40):
            options = ["".join(rng.choices("abcdefghij", k=rng.randint(1, 3))) for _ in range(4)]
            options = [f"{letter}{word}" for letter, word in zip("klmn", options, strict=True)]
            rows.append({"inputs": f"{ask} {options[0]}", "options": options, "targets": rng.choice(options)})
        world.write_rows(folder / f"{name}.jsonl", rows)
    return str(folder / "*.jsonl")


def like(finished, root, **changes):
    """A run in a copy of a finished one's workdir, with baselines and suites."""
    return world.copied(
        finished,
        root,
        overwrite=True,
        **{
            "baselines": BASELINES,
            "evaluate.suites": suites(root / "suites"),
            "evaluate.retained": ("old_*",),
            "evaluate.mixture_examples": 2,
            "frontier.scales": SCALES,
            **changes,
        },
    )


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A run with its baselines, compared; not to be written to."""
    run = like(finished, tmp_path_factory.mktemp("baselines"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("merit_jax.pipeline.estimate_gradients.gradient_rows", None)
        found = methods.train_and_merge(run, command.plan_baselines(run))
    assert list(found) == list(BASELINES)
    assert evaluate_models(run, everything(run))
    assert trace_frontier(run, everything(run))
    return run


def merged(workdir):
    return world.host(OrbaxLeaves(workdir.merged_params))


def of(run, spec):
    """A baseline's workdir."""
    return Workdir.at(command.plan_baselines(run).merged[spec].root, run.workdir.shared)


def everything(run):
    return {**{spec: of(run, spec) for spec in BASELINES}, "merged": run.workdir}


def test_baselines_share_gradients_and_tokens_with_the_run(run):
    assert {path.name for path in of(run, "merit1d").root.iterdir()} == {
        *("mixture.json", "partition.json", "branches", "merged", "times.json")
    }
    assert {path.name for path in of(run, "wise").root.iterdir()} == {"merged", "times.json"}
    assert read_json(of(run, "merit1d").partition)["inputs"]["gradients"] is not None


def test_a_baseline_trains_by_its_own_recipe(run):
    done = read_json(of(run, BASELINES[0]).branch_done(0))
    assert done["inputs"]["train"]["weight_decay"] == 0.1
    assert done["tokens"] == 2 * sum(run.tokens)
    assert read_json(of(run, "merit1d").branch_done(0))["inputs"]["train"]["weight_decay"] == 0


def test_wise_is_joint_training_brought_as_near_to_theta0_as_the_merged_model(run):
    theta0 = world.host(run.theta0.leaves())
    joint, wise, ours = (merged(of(run, spec) if spec else run.workdir) for spec in (*BASELINES[:2], ""))

    def norm(leaves):
        return np.sqrt(sum(((leaves[path].astype(np.float64) - theta0[path]) ** 2).sum() for path in theta0))

    assert norm(wise) == pytest.approx(norm(ours), rel=1e-4)
    assert norm(wise) < 0.9 * norm(joint)
    scale = read_json(of(run, "wise").merge_record)["options"]["scale"]
    assert scale == pytest.approx(norm(ours) / norm(joint), rel=1e-5)
    for path in theta0:
        np.testing.assert_allclose(
            wise[path], theta0[path] + scale * (joint[path].astype(np.float64) - theta0[path]), atol=1e-7
        )


def test_every_model_is_asked_the_suites(run):
    models = read_json(run.workdir.evaluation)["models"]
    assert list(models) == ["theta0", *BASELINES, "merged"]
    for model in models.values():
        accuracies = {name: score["accuracy"] for name, score in model["suites"].items()}
        assert set(accuracies) == set(SUITES)
        assert {score["records"] for score in model["suites"].values()} == {20}
        assert model["retained"] == pytest.approx(np.mean([v for k, v in accuracies.items() if k.startswith("old")]))
        assert model["skill"] == pytest.approx(np.mean([v for k, v in accuracies.items() if k.startswith("new")]))
        assert model["suites_mean"]["accuracy"] == pytest.approx(np.mean(list(accuracies.values())))
        assert list(model["datasets"]) == run.names
    assert len({tuple(score["accuracy"] for score in model["suites"].values()) for model in models.values()}) > 1


def test_every_model_has_its_distance_and_its_loss_on_the_mixture(run):
    models = read_json(run.workdir.evaluation)["models"]
    assert models["theta0"]["displacement"] == 0
    for spec in BASELINES:
        assert models[spec]["displacement"] == read_json(of(run, spec).merge_record)["displacement"]["merged"]
    examples = [e for dataset in run.datasets for e in calibration_examples(dataset, 2, 0)]
    nll, tokens = jax.jit(run.loss_fn)(
        run.params, stack([fill_row([example], RowCapacity(96)) for example in examples])
    )
    assert models["theta0"]["mixture_loss"] == pytest.approx(float(nll.sum() / tokens.sum()), rel=1e-4)
    assert models[BASELINES[0]]["mixture_loss"] < models["theta0"]["mixture_loss"]


def test_models_are_scored_on_the_reporting_half_question_by_question(run):
    content = read_json(run.workdir.evaluation)
    assert content["inputs"]["half"] == "reporting"
    every = load_suites(run.config.evaluate.suites)
    reported = draw_records(every, "reporting", seed=0)
    for name, records in reported.items():
        assert content["questions"][name] == question_ids(records)
        assert len(records) == len(every[name]) / 2
    assert set(content["questions"]) == {*reported, *(dataset.name for dataset in run.datasets)}
    for model in content["models"].values():
        for name, scores in {**model["suites"], **model["datasets"]}.items():
            assert len(scores["correct"]) == scores["records"] == len(content["questions"][name])
            assert scores["accuracy"] == pytest.approx(np.mean(scores["correct"]))


def test_at_scales_0_and_1_the_frontier_is_the_evaluation(run):
    models, lines = (read_json(path)["models"] for path in (run.workdir.evaluation, run.workdir.frontier))
    assert list(lines) == ["theta0", BASELINES[0], "merit1d", "merged"]
    base = [0.0, models["theta0"]["retained"], models["theta0"]["skill"]]
    assert lines["theta0"]["points"] == [base]
    assert lines["theta0"]["kept"]["scale"] == 0
    for name in list(lines)[1:]:
        points = lines[name]["points"]
        assert [point[0] for point in points] == [0.0, *SCALES]
        assert points[0] == base
        assert points[2] == [1.0, models[name]["retained"], models[name]["skill"]]
        assert [point[0] for point in lines[name]["choosing"]] == [0.0, *SCALES]
        assert lines[name]["choosing"][0] == lines["theta0"]["choosing"][0]
    assert len({tuple(line["points"][-1]) for line in lines.values()}) > 2, "the largest scale must tell models apart"


def test_each_half_has_the_scores_of_its_own_records_at_every_scale(run):
    entry, theta0 = read_json(run.workdir.frontier)["models"]["merged"], run.params
    way = tree.axpy(-1.0, theta0, run.place(OrbaxLeaves(run.workdir.merged_params)))
    every = load_suites(run.config.evaluate.suites)
    for half, key in (("choosing", "choosing"), ("reporting", "points")):
        evaluator = make_evaluator(run, draw_records(every, half, seed=0), losses=False)
        for scale, *scores in entry[key]:
            found = evaluator.evaluate(tree.axpy(scale, way, theta0))
            expected = kinds({name: score.accuracy for name, score in found.items()}, ("old_*",))
            assert scores == pytest.approx(list(expected)), (half, scale)
            if half == "reporting" and scale == entry["kept"]["scale"]:
                assert entry["kept"]["correct"] == {name: list(score.correct) for name, score in found.items()}


def test_the_scale_is_chosen_on_one_half_and_its_scores_are_those_of_the_other(run):
    for line in read_json(run.workdir.frontier)["models"].values():
        floor = 0.95 * line["choosing"][0][1]
        enough = [(skill, -scale) for scale, retained, skill in line["choosing"] if retained >= floor]
        kept = line["kept"]
        assert kept["scale"] == -max(enough)[1]
        (point,) = (point for point in line["points"] if point[0] == kept["scale"])
        assert [kept[key] for key in ("scale", "retained", "skill")] == point
        accuracies = {name: np.mean(scores) for name, scores in kept["correct"].items()}
        assert kinds(accuracies, ("old_*",)) == pytest.approx(tuple(point[1:]))


def test_what_is_evaluated_already_is_not_scored_again(run, monkeypatch, tmp_path):
    asked = []
    score = SuiteScorer.score

    def counted(self, params, *halves):
        asked.append(halves)
        return score(self, params, *halves)

    monkeypatch.setattr(SuiteScorer, "score", counted)
    trace = importlib.import_module("merit_jax.pipeline.trace_frontier")
    models = {name: model for name, model in trace._lines(run, everything(run)).items() if name in ("theta0", "merged")}
    expected = read_json(run.workdir.frontier)["models"]
    *_, last = trace._trace(run, models, {})
    assert last["models"] == {name: expected[name] for name in models}
    both = ("choosing", "reporting")
    assert asked == [("choosing",), both, ("choosing",), both]  # theta0; scales 0.5, 1 (the model itself) and 8
    asked.clear()
    *_, last = trace._trace(run, models, {"theta0": expected["theta0"]})
    assert last["models"] == {name: expected[name] for name in models}
    assert asked == [both, ("choosing",), both]
    alone = run.derive(run.config, Workdir.at(tmp_path, run.workdir.shared))
    *_, last = trace._trace(alone, models, {})
    assert last["models"] == {name: expected[name] for name in models}


def test_a_second_comparison_does_nothing(run, monkeypatch):
    for path in ("evaluate_models.suite_scorer", "evaluate_models.make_evaluator", "trace_frontier.suite_scorer"):
        monkeypatch.setattr(f"merit_jax.pipeline.{path}", None)
    monkeypatch.setattr("merit_jax.core.sharding.load", None)
    files = [Path(path) for path in (run.workdir.evaluation, run.workdir.frontier)]
    before = [path.stat().st_mtime_ns for path in files]
    methods.train_and_merge(run, command.plan_baselines(run))
    assert not evaluate_models(run, everything(run))
    assert not trace_frontier(run, everything(run))
    assert before == [path.stat().st_mtime_ns for path in files]


def test_a_baseline_of_the_same_optimizer_shares_the_compiled_step(run):
    configs = {spec: task.config for spec, task in command.plan_baselines(run).trained.items()}
    step = run.train_step
    shared, own = (run.derive(configs[spec], of(run, spec)) for spec in ("merit1d", BASELINES[0]))
    assert shared.train_step is step
    assert own.train_step is not step
    for other in (shared, own):
        assert other.params is run.params
        assert other.datasets is run.datasets
        assert other.loss_fn is run.loss_fn
    rate = variant(run.config, "joint:train.learning_rate=0.5")
    assert run.derive(rate, run.workdir).train_step is step


@pytest.mark.parametrize(
    ("baselines", "said"),
    [
        (("joint", "jiont"), "unknown method 'jiont'"),
        (("joint", "random4:train.rate=1"), r"cannot override 'train\.rate'"),
        (("wise",), "method 'wise' moves theta0 towards joint training; list 'joint' among the methods"),
    ],
)
@pytest.mark.parametrize("stages", [(), ("mixture",)])
def test_a_wrong_baseline_is_refused_before_anything_is_done(finished, tmp_path, baselines, said, stages):
    config, workdir = world.config(world.beside(finished, tmp_path), baselines=baselines), tmp_path / "run"
    with pytest.raises(ValueError, match=said):
        command.run_config(config, workdir, stages, overwrite=False)
    assert not workdir.exists() or not list(workdir.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluate.suites": ""}, r"a frontier needs evaluate\.suites, and evaluate\.retained"),
        ({"evaluate.retained": ()}, r"a frontier needs evaluate\.suites, and evaluate\.retained"),
        (
            {"evaluate.retained": ("*",)},
            r"evaluate\.retained matches every suite; a frontier needs suites of new skills",
        ),
        (
            {"evaluate.retained": ("older",)},
            r"no suite matches 'older'; known: new_letter, new_word, old_letter, old_word",
        ),
        ({"frontier.retention": 1.5}, r"frontier\.retention = 1\.5: expected a share of theta0's score, from 0 to 1"),
    ],
)
def test_a_frontier_needs_suites_of_both_kinds(finished, tmp_path, changes, said):
    run = like(finished, tmp_path, **changes)
    with pytest.raises(ValueError, match=said):
        trace_frontier(run)
    assert not run.workdir.frontier.exists()


def test_theta0_is_measured_anew_where_the_recorded_one_was_another(run):
    trace = importlib.import_module("merit_jax.pipeline.trace_frontier")
    models = {name: model for name, model in trace._lines(run, everything(run)).items() if name in ("theta0", "merged")}
    kept = {"scale": 0.0, "retained": 9.0, "skill": 9.0, "correct": {}}
    point = [[0.0, 9.0, 9.0]]
    stale = {
        name: {"inputs": {"theta0": "another"}, "points": point, "choosing": point, "kept": kept} for name in models
    }
    *_, last = trace._trace(run, models, stale)
    expected = read_json(run.workdir.frontier)["models"]
    assert last["models"] == {name: expected[name] for name in models}


def test_a_frontier_of_other_scales_is_named(run):
    other = variant(run.config, "merit2d")
    with other.unlocked():
        other.frontier.scales = (0.5, 1.0)
    other = run.derive(other, run.workdir)
    other = dataclasses.replace(other, overwrite=False)
    with pytest.raises(ValueError, match=r"frontier\.json was made from other inputs: frontier\.scales"):
        trace_frontier(other, everything(run))


@pytest.mark.parametrize("stage", [evaluate_models, trace_frontier])
def test_scores_on_suites_that_have_changed_are_not_taken_for_new_ones(run, tmp_path, stage):
    config = variant(run.config, "merit2d")
    folder = tmp_path / "suites"
    shutil.copytree(Path(config.evaluate.suites).parent, folder)
    with config.unlocked():
        config.evaluate.suites = str(folder / "*.jsonl")
    moved = run.derive(config, run.workdir)
    moved = dataclasses.replace(moved, overwrite=False)
    assert not stage(moved, everything(run))
    (folder / "new_word.jsonl").write_text((folder / "old_word.jsonl").read_text())
    with pytest.raises(ValueError, match=r"was made from other inputs: suites\.new_word"):
        stage(moved, everything(run))


def test_without_scales_there_is_no_frontier_and_all_records_are_reported(finished, tmp_path):
    run = like(finished, tmp_path, **{"frontier.scales": ()})
    assert not trace_frontier(run)
    assert not run.workdir.frontier.exists()
    assert evaluate_models(run)
    content = read_json(run.workdir.evaluation)
    assert content["inputs"]["half"] == "all"
    assert {len(content["questions"][name]) for name in SUITES} == {40}


def test_a_suite_of_one_record_is_named_where_a_frontier_halves_it(finished, tmp_path):
    run = like(finished, tmp_path)
    few = Path(run.config.evaluate.suites).parent / "old_few.jsonl"
    world.write_rows(few, [{"inputs": "say a", "targets": "a"}])
    for stage in (evaluate_models, trace_frontier):
        with pytest.raises(ValueError, match=r"suite 'old_few' has 1 record, and frontier\.scales needs 2"):
            stage(run)


def test_a_suite_named_as_a_dataset_with_other_records_is_refused(finished, tmp_path):
    run = like(finished, tmp_path)
    other = Path(run.config.evaluate.suites).parent / f"{run.names[0]}.jsonl"
    world.write_rows(other, [{"inputs": f"say {word}", "targets": word} for word in "ab"])
    with pytest.raises(ValueError, match=rf"a suite '{run.names[0]}' with other records than the held-out ones"):
        evaluate_models(run)


def test_a_model_whose_scores_are_not_finite_is_named_with_suite_and_record(finished, tmp_path, monkeypatch):
    run = like(finished, tmp_path, **{"frontier.scales": (1e39,)})
    message = r"merged at scale 1e\+39 of frontier\.scales: suite '\w+' \(\w+ half\), .*jsonl:\d+: the score of option 1 is NaN"
    with pytest.raises(ValueError, match=message):
        trace_frontier(run)
    far = dict(evaluated_models(run))
    far["merged"] = far["merged"]._replace(leaves=lambda: _Scaled(run.theta0.leaves(), np.nan))
    monkeypatch.setattr("merit_jax.pipeline.evaluate_models.evaluated_models", lambda *_: far)
    with pytest.raises(
        ValueError, match=r"merged: \w+, .*test\.jsonl:\d+: the loss of its response is NaN or infinite"
    ):
        evaluate_models(run)


class _Scaled:
    """A model whose parameters are multiplied."""

    def __init__(self, leaves, factor):
        self._leaves, self._factor = leaves, factor

    def paths(self):
        return self._leaves.paths()

    def read(self, path):
        return self._leaves.read(path) * np.float32(self._factor)
