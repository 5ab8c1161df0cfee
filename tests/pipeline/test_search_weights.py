"""Searched merge weights on the tiny world: one branch is sound and knows the suites' answers, the others are broken."""

import dataclasses
import importlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from merit_jax.checkpoints.readers import OrbaxLeaves, TreeLeaves
from merit_jax.configs.schema.check import check_keys
from merit_jax.core import tree
from merit_jax.data.manifest import read_manifest
from merit_jax.data.records import read_entry
from merit_jax.evaluation.suites import draw_records, load_suites
from merit_jax.launch.experiments import methods
from merit_jax.pipeline import search_settings
from merit_jax.pipeline.evaluate_models import evaluate_models
from merit_jax.pipeline.evaluators import MixtureLoss, SuiteScorer, make_evaluator
from merit_jax.pipeline.stages import run_stages
from merit_jax.pipeline.train_branches import branch_leaves
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir
from tests.support import world

EVALUATIONS = 24
SOUND = 1
"""The branch that knows the answers."""


def broken(run, k):
    """A branch as it was trained, or theta0 with noise in the place of one that is not sound."""
    if k == SOUND:
        return branch_leaves(run, k)
    rng, theta0 = np.random.default_rng(k), world.host(run.theta0.leaves())
    noisy = {path: leaf + rng.normal(0, 0.2, leaf.shape).astype(np.float32) for path, leaf in theta0.items()}
    return TreeLeaves(tree.unflatten(noisy))


@pytest.fixture(scope="module", autouse=True)
def _broken_branches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("merit_jax.pipeline.merge_inputs.branch_leaves", broken)
        yield


def suites(folder, run):
    """Multiple choice among four words, where the right one is that which the sound branch takes."""
    folder.mkdir()
    rng = random.Random(0)
    for name in ("which", "other"):
        rows = []
        for number in range(32):
            words = [f"{letter}{''.join(rng.choices('abcdefghij', k=3))}" for letter in "klmn"]
            rows.append({"inputs": f"{name} {number}: which of {' '.join(words)}?", "options": words})
        path, params = folder / f"{name}.jsonl", run.place(branch_leaves(run, SOUND))
        right = []
        for place in range(4):
            world.write_rows(path, [{**row, "targets": row["options"][place]} for row in rows])
            (entry,) = read_manifest(str(path), suites=True)
            right.append(make_evaluator(run, {name: read_entry(entry)}, losses=False).evaluate(params)[name].correct)
        answers = np.argmax(right, axis=0)
        world.write_rows(path, [{**row, "targets": row["options"][k]} for row, k in zip(rows, answers, strict=True)])
    return str(folder / "*.jsonl")


def searching(finished, folder, **changes):
    """A run in an empty workdir that merges the branches of a finished one with searched weights."""
    config = world.config(Path(finished.workdir.root).parent)
    given = {"merge.branches": str(finished.workdir.root), "merge.search_evaluations": EVALUATIONS, **changes}
    config.unlock().update_from_flattened_dict(given)
    return finished.derive(config.lock(), Workdir.at(folder, finished.workdir.shared))


@pytest.fixture(scope="module")
def questions(finished, tmp_path_factory):
    return suites(tmp_path_factory.mktemp("questions") / "suites", finished)


@pytest.fixture(scope="module")
def scored():
    """The halves that were scored, one entry for each model."""
    return []


@pytest.fixture(scope="module")
def run(finished, questions, scored, tmp_path_factory):
    """A finished search, merged and exported; not to be written to."""
    run = searching(finished, tmp_path_factory.mktemp("searched"), **{"evaluate.suites": questions})
    score = SuiteScorer.score

    def spied(self, params, *halves):
        scored.append(halves)
        return score(self, params, *halves)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SuiteScorer, "score", spied)
        assert run_stages(run, ("search",))
    run_stages(run, ("merge", "export", "evaluate"))
    return run


def points(run):
    return read_json(run.workdir.search)["points"]


def best(run):
    return max(points(run), key=lambda point: point["score"])


def leaves(finished):
    return [world.host(broken(finished, k)) for k in range(4)]


def test_the_sound_branch_is_found(run, finished):
    start = points(run)[0]
    tokens = read_json(finished.workdir.merge_record)["tokens"]
    np.testing.assert_allclose(start["weights"], [np.array(tokens) / sum(tokens)], rtol=1e-12)
    assert best(run)["score"] > start["score"] + 0.1
    assert best(run)["weights"][0][SOUND] > start["weights"][0][SOUND] + 0.2
    for point in points(run):
        assert sum(point["weights"][0]) == pytest.approx(1)
        assert min(point["weights"][0]) > 0


def test_a_score_is_that_of_the_mean_of_the_branches_on_the_choosing_half(run, finished):
    records = draw_records(load_suites(run.config.evaluate.suites), "choosing", seed=0)
    assert {len(found) for found in records.values()} == {16}
    evaluator = make_evaluator(run, records, losses=False)
    for point in (points(run)[0], best(run)):
        mean = _mean(leaves(finished), point["weights"][0])
        found = evaluator.evaluate(run.place(TreeLeaves(tree.unflatten(mean))))
        assert point["score"] == pytest.approx(np.mean([score.accuracy for score in found.values()]))


def _mean(branches, weights):
    return {
        path: sum(w * branch[path].astype(np.float64) for w, branch in zip(weights, branches, strict=True)).astype(
            np.float32
        )
        for path in branches[0]
    }


def test_the_reporting_half_is_never_scored(run, scored):
    assert run.workdir.search.exists()
    assert scored == [("choosing",)] * EVALUATIONS
    content = read_json(run.workdir.evaluation)
    assert content["inputs"]["half"] == "reporting"
    assert {score["records"] for score in content["models"]["merged"]["suites"].values()} == {16}


def test_other_answers_in_the_reporting_half_find_the_same_weights(run, finished, questions, tmp_path):
    reported = draw_records(load_suites(questions), "reporting", seed=0)
    (tmp_path / "suites").mkdir()
    for name, records in reported.items():
        asked = {record.messages[0]["content"] for record in records}
        rows = [json.loads(line) for line in (Path(questions).parent / f"{name}.jsonl").read_text().splitlines()]
        changed = [{**row, "targets": row["options"][0]} if row["inputs"] in asked else row for row in rows]
        assert changed != rows
        world.write_rows(tmp_path / "suites" / f"{name}.jsonl", changed)
    changes = {"evaluate.suites": str(tmp_path / "suites" / "*.jsonl"), "merge.search_evaluations": 6}
    other = searching(finished, tmp_path / "other", **changes)
    run_stages(other, ("search",))
    assert points(other) == points(run)[:6]


def test_the_merge_has_the_best_weights_and_says_how_they_were_found(run, finished):
    record, found = read_json(run.workdir.merge_record), best(run)
    assert record["weights"] == found["weights"][0]
    assert record["weighted_mean"]
    search = record["search"]
    assert (search["evaluations"], search["scored_on"]) == (EVALUATIONS, "suites")
    assert points(run)[search["evaluation"]] == found
    assert (search["score"], search["token_weights_score"]) == (found["score"], points(run)[0]["score"])
    merged = world.host(OrbaxLeaves(run.workdir.merged_params))
    for path, leaf in _mean(leaves(finished), record["weights"]).items():
        np.testing.assert_allclose(merged[path], leaf, atol=1e-6)
    card = (run.workdir.merged_hf / "README.md").read_text()
    assert f"searched by CMA-ES: the best of {EVALUATIONS} by mean accuracy on the suites' choosing half, " in card
    assert f"| {SOUND} | {record['weights'][SOUND]:.4f} |" in card
    assert json.loads((run.workdir.merged_hf / "merit.json").read_text())["search"] == search


def test_a_finished_search_is_left_alone(run, monkeypatch):
    before = run.workdir.search.stat()
    monkeypatch.setattr("merit_jax.pipeline.search_weights._Candidates", None)
    assert not run_stages(run, ("search", "merge", "export", "evaluate"))
    assert run.workdir.search.stat() == before
    assert not run.workdir.search_lease.exists()


@pytest.mark.parametrize("stopped", [1, 9])
def test_a_search_that_was_killed_goes_on_to_the_same_result(run, finished, questions, tmp_path, monkeypatch, stopped):
    stage = importlib.import_module("merit_jax.pipeline.search_weights")
    other = searching(finished, tmp_path, **{"evaluate.suites": questions, "merge.search_evaluations": 12})
    score, scored = stage._Candidates.score, []

    def counted(self, weights):
        if len(scored) == stopped:
            raise KeyboardInterrupt
        scored.append(weights)
        return score(self, weights)

    monkeypatch.setattr(stage._Candidates, "score", counted)
    with pytest.raises(KeyboardInterrupt):
        run_stages(other, ("search",))
    assert points(other) == points(run)[:stopped]
    assert not other.workdir.search_lease.exists()
    unfinished = rf"search\.json has {stopped} of 12 evaluations; run merit run --stages=search to go on"
    with pytest.raises(ValueError, match=unfinished):
        run_stages(other, ("merge",))
    monkeypatch.setattr(
        stage._Candidates, "score", lambda self, weights: scored.append(weights) or score(self, weights)
    )
    assert run_stages(other, ("search",))
    assert len(scored) == 12
    assert points(other) == points(run)[:12]


def test_more_evaluations_go_on_with_the_search_and_are_another_merge(run, finished, questions, tmp_path):
    changes = {"evaluate.suites": questions}
    short = searching(finished, tmp_path, **changes, **{"merge.search_evaluations": 2})
    run_stages(short, ("search", "merge"))
    longer = searching(finished, tmp_path, **changes, **{"merge.search_evaluations": 4})
    assert run_stages(longer, ("search",))
    assert points(longer) == points(run)[:4]
    with pytest.raises(ValueError, match=r"merge\.json was made from other inputs: search\.evaluations: 2 -> 4"):
        run_stages(longer, ("merge",))
    assert not run_stages(short, ("search", "merge"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merge.search_seed": 1}, r"seed: 0 -> 1"),
        ({"merge.search_blocks": 1}, r"blocks: 0 -> 1"),
        ({"frontier.max_records": 3}, r"max_records: 0 -> 3"),
        ({"merge.tokens": "all"}, r'tokens: "supervised" -> "all"'),
    ],
)
@pytest.mark.parametrize("stage", ["search", "merge"])
def test_a_search_from_other_inputs_is_refused(run, changes, said, stage):
    config = run.config.copy_and_resolve_references()
    config.unlock().update_from_flattened_dict(changes)
    before = run.workdir.search.read_text()
    with pytest.raises(ValueError, match=rf"\.json was made from other inputs: .*{said}"):
        run_stages(run.derive(config.lock(), run.workdir), (stage,))
    assert run.workdir.search.read_text() == before


def test_blocks_of_layers_have_weights_of_their_own(finished, questions, tmp_path):
    changes = {"evaluate.suites": questions, "merge.search_blocks": 2, "merge.search_evaluations": 9}
    run = searching(finished, tmp_path, **changes)
    run_stages(run, ("search", "merge", "export"))
    record = read_json(run.workdir.merge_record)
    rows = record["search"]["rows"]
    assert rows == best(run)["weights"]
    assert (len(rows), record["weights"], record["weighted_mean"]) == (3, None, False)
    assert rows[0] != rows[1] != rows[2]
    assert best(run)["score"] > points(run)[0]["score"]
    merged, branches = world.host(OrbaxLeaves(run.workdir.merged_params)), leaves(finished)
    outside, *layers = (_mean(branches, rows[row]) for row in (2, 0, 1))
    for path, leaf in merged.items():
        stacked = path.startswith("layers/")
        mean = np.stack([layers[k][path][k] for k in range(2)]) if stacked else outside[path]
        np.testing.assert_allclose(leaf, mean, atol=1e-6)
    assert not (run.workdir.merged / "mergekit.yaml").exists()
    card = (run.workdir.merged_hf / "README.md").read_text()
    assert "| branch | block 0 | block 1 | outside of layers | supervised tokens |" in card
    assert f"| {SOUND} | {' | '.join(f'{row[SOUND]:.4f}' for row in rows)} |" in card


def test_branches_that_are_missing_have_no_weight_and_late_ones_are_another_search(finished, tmp_path):
    changes = {"evaluate.mixture_examples": 1, "merge.search_evaluations": 2, "merge.search_blocks": 1}
    run = dataclasses.replace(world.copied(finished, tmp_path, overwrite=True, **changes), allow_missing=True)
    record = run.workdir.branch_done(0)
    late = record.read_text()
    record.unlink()
    run_stages(run, ("search", "merge", "export"))
    rows = read_json(run.workdir.merge_record)["search"]["rows"]
    assert [len(row) for row in rows] == [4, 4]
    assert [row[0] for row in rows] == [0, 0]
    assert [row[1:] for row in rows] == best(run)["weights"]
    card = (run.workdir.merged_hf / "README.md").read_text()
    assert f"| 3 | {' | '.join(f'{row[3]:.4f}' for row in rows)} |" in card
    record.write_text(late)
    for stage in ("search", "merge"):
        with pytest.raises(ValueError, match=r"search\.json was made from other inputs: branches: "):
            run_stages(dataclasses.replace(run, overwrite=False), (stage,))


def test_without_suites_the_loss_on_training_examples_decides(finished, tmp_path):
    changes = {"evaluate.mixture_examples": 2, "merge.search_evaluations": 16}
    run = searching(finished, tmp_path, **changes)
    run_stages(run, ("search", "merge", "export", "evaluate"))
    start, found = points(run)[0], best(run)
    assert found["score"] > start["score"] + 0.05
    assert found["weights"][0][SOUND] > start["weights"][0][SOUND] + 0.1
    for point in (start, found):
        mean = run.place(TreeLeaves(tree.unflatten(_mean(leaves(finished), point["weights"][0]))))
        assert point["score"] == pytest.approx(-MixtureLoss(run)(mean), rel=1e-4)
    content = read_json(run.workdir.evaluation)
    assert content["inputs"]["half"] == "all"
    assert content["models"]["merged"]["mixture_loss"] == pytest.approx(-found["score"], rel=1e-4)
    card = (run.workdir.merged_hf / "README.md").read_text()
    assert f"loss on training examples of the mixture, {-found['score']:.4f}; the token weights" in card


def test_a_method_with_a_search_is_a_merge_of_the_same_branches(finished, questions, tmp_path):
    spec = "merit2d:merge.search_evaluations=2"
    config = world.config(Path(finished.workdir.root).parent, **{"evaluate.suites": questions})
    own = dataclasses.replace(finished, config=config)
    plan = methods.plan_comparison(config, [spec], epath.Path(tmp_path), own=finished.workdir.root)
    found = methods.train_and_merge(own, plan)
    assert read_json(found[spec].merge_record)["search"]["evaluations"] == 2
    assert not (found[spec].root / "branches").exists()
    elsewhere = own.derive(config, Workdir.at(tmp_path / "compared", finished.workdir.shared))
    assert evaluate_models(elsewhere, found)
    assert read_json(elsewhere.workdir.evaluation)["inputs"]["half"] == "reporting"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merge.method": "uniform"}, r"search_evaluations = 24 searches the weights of an average, .*'uniform'; set"),
        (
            {"merge.search_evaluations": 0, "merge.search_blocks": 2},
            r"merge\.search_blocks = 2 is for a search of weights",
        ),
        (
            {"merge.branches": "", "evaluate.mixture_examples": 2, "rounds.count": 2, "rounds.outer_rate": 0.7},
            r"rounds\.outer_rate = 0\.7 and rounds\.momentum = 0 step beyond",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_refused_before_anything_is_read(finished, tmp_path, changes, said):
    run = searching(finished, tmp_path, **changes)
    with pytest.raises(ValueError, match=said):
        check_keys(run.config)


def test_a_search_without_anything_to_score_on_is_refused(finished, tmp_path):
    run = searching(finished, tmp_path)
    for stage in ("search", "merge"):
        with pytest.raises(
            ValueError, match=r"nothing to score merge weights on; set evaluate\.suites, .*mixture_examples"
        ):
            run_stages(run, (stage,))


def test_one_branch_has_no_weights_to_search(finished, tmp_path):
    changes = {"evaluate.mixture_examples": 1, "merge.search_evaluations": 2}
    run = world.copied(finished, tmp_path, "joint", overwrite=True, **changes)
    run_stages(run, ("partition", "train"))
    with pytest.raises(ValueError, match="a single branch has no merge weights to search"):
        run_stages(run, ("search",))


def test_a_run_without_a_search_has_none(finished):
    assert not finished.workdir.search.exists()
    assert "search" not in read_json(finished.workdir.merge_record)["inputs"]


def test_a_merge_before_its_search_is_refused(finished, tmp_path):
    run = searching(finished, tmp_path, **{"evaluate.mixture_examples": 1})
    with pytest.raises(ValueError, match=r"search\.json is missing; run merit run --stages=search first"):
        run_stages(run, ("merge",))
    assert not run.workdir.merged.exists()


def test_a_search_without_its_library_is_refused_before_training(finished, monkeypatch):
    monkeypatch.setattr(search_settings, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"merge.search_evaluations = 4 needs cmaes: pip install 'merit-jax\[search\]'"
    ):
        check_keys(world.config(Path(finished.workdir.root).parent, **{"merge.search_evaluations": 4}))


def test_a_search_without_anything_to_score_on_is_refused_before_training(finished):
    with pytest.raises(ValueError, match=r"nothing to score merge weights on; set evaluate\.suites"):
        check_keys(world.config(Path(finished.workdir.root).parent, **{"merge.search_evaluations": 4}))
