"""Pruning of a run's merged model and of theta0: what is scored, kept, trained again, exported, evaluated and refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from merit_jax.checkpoints.readers import TreeLeaves
from merit_jax.data.elsewhere import RowsElsewhere
from merit_jax.launch.wiring import open_run
from merit_jax.models import load_pretrained
from merit_jax.pipeline.evaluators import reported_half
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.pruning import order, prune, score_heads, trace_pruning
from merit_jax.pipeline.pruning.choose_heads import choose_heads, chosen_gates
from merit_jax.pipeline.pruning.order import Pruning, all_kept, kept_heads
from merit_jax.pipeline.pruning.pruned_models import final_leaves
from merit_jax.pipeline.pruning.pruning_run import GatedLeaves, pruning_run
from merit_jax.pipeline.pruning.score_heads import head_scores
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.pruning_files import PruningFiles
from merit_jax.workdir.pruning_results import read_pruning
from tests.support import world

HALF = {"prune.ratio": 0.5, "prune.spread": "layer"}
OUTPUT = "layers/attention/output/kernel"


@pytest.fixture(scope="module")
def pruned(finished, tmp_path_factory):
    """The pruning of a finished run's merged model, with recovery."""
    changes = {**HALF, "prune.recovery": 0.5, "prune.curve": (0.5,), "prune.draws": 1}
    run = world.copied(finished, tmp_path_factory.mktemp("pruned"), **changes)
    assert run_stages(run, ("prune",))
    return run


def closed_rows(run, kept):
    """The rows of the output projection that belong to pruned heads, by layer."""
    dim = run.model.config.head_dim
    return ~np.repeat(np.asarray(kept["decoder"], bool), dim, axis=1)


def test_the_merged_model_is_pruned_in_a_folder_of_its_own(pruned):
    found = read_json(PruningFiles(pruned.workdir.pruned).choice)
    kept = np.array(found["kept"]["decoder"])
    assert found["removed"] == 0.5
    assert kept.sum(axis=1).tolist() == [2] * len(kept)
    assert found["criterion"] == "hies"
    scores = {name: np.array(parts["decoder"]) for name, parts in found["scores"].items()}
    for layer, row in enumerate(kept):
        for pair in (slice(0, 2), slice(2, 4)):  # of the heads that share a key and a value, the weaker goes
            assert row[pair].argmax() == scores["hies"][layer, pair].argmax()


def test_scores_are_means_over_the_calibration_examples_of_all_datasets_at_the_merged_model(pruned):
    run = pruning_run(pruned)
    content = read_json(PruningFiles(run.workdir.root).choice)["scores"]
    scores = head_scores(run, all_kept(run))
    np.testing.assert_allclose(content["importance"]["decoder"], scores.importance["decoder"])
    assert 0 < scores.entropy["decoder"].min() < scores.entropy["decoder"].max() <= 1
    arrays = score_heads._stage(all_kept(run)).read(run)
    assert arrays["datasets"].tolist() == run.names
    assert arrays["examples"].tolist() == [min(8, len(dataset.train)) for dataset in run.datasets]
    sums = arrays["importance_decoder"].sum(axis=0) / arrays["examples"].sum()
    np.testing.assert_allclose(sums, scores.importance["decoder"], rtol=1e-6)


def test_recovery_trains_what_is_left_and_leaves_pruned_heads_closed(pruned):
    run = pruning_run(pruned)
    kept = chosen_gates(run)
    before = world.host(GatedLeaves(merged_leaves(pruned.workdir), run.model, kept))
    after = world.host(final_leaves(run))
    assert before.keys() == after.keys()
    closed = closed_rows(run, kept)
    assert not after[OUTPUT][closed].any()
    assert np.abs(after[OUTPUT] - before[OUTPUT])[~closed].max() > 0
    assert np.abs(after["layers/mlp/up/kernel"] - before["layers/mlp/up/kernel"]).max() > 0
    part = read_json(PruningFiles(run.workdir.root).recovery / "partition.json")
    assert [len(branch["shares"]) for branch in part["branches"]] == [len(run.names)]
    assert part["branches"][0]["samples"] == sum(max(1, round(dataset.visit_count / 2)) for dataset in run.datasets)


def test_the_export_is_a_smaller_model_of_the_same_function(pruned):
    run = pruning_run(pruned)
    folder = Path(PruningFiles(run.workdir.root).exported)
    model, params = load_pretrained(str(folder))
    assert (model.config.heads, model.config.kv_heads) == (2, 2)
    batch = world.row([5, 9, 11, 7])
    whole = TreeLeaves(run.params).paths()
    recovered = run.place(final_leaves(run))
    assert set(whole) == set(final_leaves(run).paths())
    np.testing.assert_allclose(model.hidden(params, batch), run.model.hidden(recovered, batch), atol=1e-5)
    card = (folder / "README.md").read_text()
    assert "50.0 % of the attention heads" in card
    costs = read_json(PruningFiles(run.workdir.root).costs)
    removed = costs["before"]["parameters"] - costs["after"]["parameters"]
    assert removed == model.config.layers * 2 * (
        2 * 8 * 32
    )  # of two heads a layer, a query and an output of 8 x 32 each
    assert costs["after"]["written_tokens_per_second"] > 0


def test_the_whole_the_pruned_and_the_recovered_model_are_evaluated(pruned):
    run = pruning_run(pruned)
    models = read_json(run.workdir.evaluation)["models"]
    assert list(models) == ["whole", "pruned", "recovered"]
    alone = read_json(pruned.workdir.evaluation)["models"]["merged"]
    np.testing.assert_allclose(models["whole"]["mean"]["loss"], alone["mean"]["loss"], rtol=1e-5)
    curve = read_json(PruningFiles(run.workdir.root).curve)["models"]
    names = [f"{criterion}-0.5" for criterion in ("hies", "importance", "entropy", "magnitude", "random")]
    names[-1] += "-0"
    assert list(curve) == ["whole", *(name + end for name in names for end in ("", " recovered"))]
    assert curve["hies-0.5"]["mean"] == models["pruned"]["mean"]
    found = read_pruning(run.workdir.root)
    assert [*found.evaluation.models] == [*models]
    assert [*found.curve.models] == [*curve]
    assert found.costs["notes"]


def test_a_second_time_there_is_nothing_to_do(pruned, monkeypatch):
    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(score_heads, "head_sums", refuse)
    again = pruning_run(
        world.run(pruned.workdir.root.parent, pruned.workdir.root.name, **HALF, **{"prune.recovery": 0.5})
    )
    assert not prune.prune(again)


def test_only_datasets_that_are_new_are_scored(finished, tmp_path, monkeypatch):
    root = world.beside(finished, tmp_path)
    few = world.run(root, "run", **HALF, **{"mixture.include": ("copy", "first")})
    head_scores(few, all_kept(few))
    measured = []
    monkeypatch.setattr(score_heads, "_check", lambda sums, name: measured.append(name))
    more = world.run(root, "run", **HALF, **{"mixture.include": ("copy", "first", "length")})
    grown = head_scores(more, all_kept(more))
    assert measured == ["length"]
    afresh = world.run(root, "other", **HALF, **{"mixture.include": ("copy", "first", "length")})
    np.testing.assert_allclose(grown.importance["decoder"], head_scores(afresh, all_kept(afresh)).importance["decoder"])


def test_in_rounds_heads_are_scored_again_without_those_that_went(finished, tmp_path, monkeypatch):
    root = world.beside(finished, tmp_path)
    run = world.run(root, "run", **{**HALF, "prune.spread": "model", "prune.rounds": 2})
    seen = []
    monkeypatch.setattr(order, "head_scores", lambda run, kept: seen.append(kept["decoder"]) or head_scores(run, kept))
    kept = kept_heads(run, Pruning("hies", 0.5, 0.5))["decoder"]
    assert [int((~gates).sum()) for gates in seen] == [0, kept.size // 4]
    assert not (kept & ~seen[1]).any()
    assert (~kept).sum() == kept.size // 2


@pytest.fixture
def small(finished, tmp_path):
    return lambda **changes: world.run(world.beside(finished, tmp_path), "run", **changes)


def test_of_several_alphas_the_one_that_scores_best_on_the_choosing_half_is_taken(small, monkeypatch):
    keys = {"prune.alpha": (0.0, 0.5, 1.0), "evaluate.suites": "suites.json", "prune.curve": (0.5,), "prune.draws": 1}
    run = small(**HALF, **keys)
    wanted = [kept_heads(run, Pruning("hies", 0.5, alpha)) for alpha in (0.0, 0.5, 1.0)]
    found = iter([0.2, 0.6, 0.4])
    monkeypatch.setattr("merit_jax.pipeline.pruning.choose_heads.suites_that_choose", lambda run: {"suites": {}})
    monkeypatch.setattr("merit_jax.pipeline.pruning.choose_heads._choosing_accuracy", lambda run, kept: next(found))
    choose_heads(run)
    content = choose_heads.read(run)
    assert content["alpha"] == 0.5
    assert content["accuracies"] == {"0.0": 0.2, "0.5": 0.6, "1.0": 0.4}
    np.testing.assert_array_equal(content["kept"]["decoder"], wanted[1]["decoder"])
    inputs = {name: model.inputs for name, model in trace_pruning._models(run).items()}
    assert inputs["hies-0.5"]["pruning"]["alpha"] == 0.5
    assert reported_half(run, inputs.values()) == "reporting"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune.ratio": 0.9}, "largest possible ratio is 0.5"),
        ({"prune.ratio": 0.01}, "removes no head"),
        ({"prune.curve": (0.5, 0.9)}, "ratio = 0.9 removes too many heads"),
        ({"prune.parts": ("vision",)}, "no heads in 'vision'"),
        ({"prune.alpha": (0.2, 0.8)}, "evaluate.suites"),
        ({"prune.alpha": (2.0,)}, "prune.alpha"),
        ({"prune.ratio": 1.0}, "prune.ratio"),
    ],
)
def test_what_cannot_be_pruned_is_refused_by_name_before_a_head_is_scored(small, changes, message, monkeypatch):
    monkeypatch.setattr(score_heads, "head_measure", None)
    with pytest.raises(ValueError, match=message):
        prune.prune(small(**{**HALF, **changes}))


def test_a_folder_with_other_files_is_not_overwritten(small, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    run = small(**HALF)
    with pytest.raises(ValueError, match="holds other files"):
        prune.prune(run, type(run.workdir.root)(out))
    assert (out / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("theta0", "holds the model that is pruned"),
        ("run", "holds the workdir"),
        (".", "holds the"),
        ("hf", "other files"),
    ],
)
def test_an_export_deletes_neither_the_model_nor_the_workdir_nor_a_model_that_is_not_pruned(
    finished, tmp_path, place, message
):
    shutil.copytree(finished.workdir.root.parent / "theta0", tmp_path / "theta0")
    shutil.copytree(finished.workdir.merged_hf, tmp_path / "hf")
    world.beside(finished, tmp_path)
    write_json(type(finished.workdir.root)(tmp_path) / "theta0" / "checksums.json", {"inputs": {"pruning": "earlier"}})
    run = world.run(tmp_path, "run", overwrite=True, **HALF)
    with pytest.raises(ValueError, match=message):
        prune.prune(run, run.workdir.root.parent / place)
    assert (tmp_path / "theta0" / "config.json").exists()
    assert (tmp_path / "hf" / "config.json").exists()


def test_datasets_elsewhere_are_passed_over_and_one_must_be_here(small, monkeypatch):
    run = small(**HALF, **{"mixture.include": ("copy", "first")})
    away = RowsElsewhere("copy", 12)
    first = run.datasets[0]._replace(train=away, held_out=())
    assert first.name == "copy"
    some = run.starting_from(run.theta0, (first, run.datasets[1]), run.config, run.workdir)
    monkeypatch.setattr(prune, "has_records", lambda run: False)
    assert prune.prune(some)
    assert score_heads._stage(all_kept(some)).read(some)["datasets"].tolist() == ["first"]
    none = run.starting_from(run.theta0, (first,), run.config, run.workdir)
    with pytest.raises(ValueError, match="all datasets are elsewhere"):
        head_scores(none, all_kept(none))


def test_scores_on_eight_devices_are_those_on_one(finished, tmp_path):
    root, changes = world.beside(finished, tmp_path), {**HALF, "mixture.include": ("copy", "vowel")}
    alone = world.run(root, "alone", **changes)
    sharded = open_run.open_run(world.config(root, **changes, **{"mesh.data": 2, "mesh.tensor": 2}), root / "sharded")
    assert sharded.mesh.size == 8
    expected, found = (head_scores(run, all_kept(run)) for run in (alone, sharded))
    for field in ("importance", "entropy"):
        np.testing.assert_allclose(getattr(found, field)["decoder"], getattr(expected, field)["decoder"], rtol=1e-4)
