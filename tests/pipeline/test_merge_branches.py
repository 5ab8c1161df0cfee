"""A merge of other branches or by other operators: what it gives, what it records, what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.data.loader import training_batches
from merit_jax.pipeline.merge_options import merge_options
from merit_jax.pipeline.merge_record import read_merge
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run_diagnostics import run_diagnostics
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.paths import Workdir
from tests.support import world


def configured(finished, **changes):
    """The config of a finished run with other keys."""
    config = world.config(Path(finished.workdir.root).parent)
    config.unlock().update_from_flattened_dict(changes)
    return config.lock()


def elsewhere(finished, folder, **changes):
    """A run in an empty workdir that merges the branches of a finished one."""
    changes = {"merge.branches": str(finished.workdir.root), **changes}
    return finished.derive(configured(finished, **changes), Workdir.at(folder / "other", finished.workdir.shared))


def branches(run):
    return [world.host(OrbaxLeaves(params_directory(run.workdir.branch(k) / "checkpoints"))) for k in range(4)]


def norm(one, other):
    return np.sqrt(sum(((one[path].astype(np.float64) - other[path]) ** 2).sum() for path in one))


def test_displacements_are_the_norms_of_the_task_vectors(finished):
    record, theta0 = read_json(finished.workdir.merge_record), world.host(finished.theta0.leaves())
    expected = [norm(branch, theta0) for branch in branches(finished)]
    np.testing.assert_allclose(record["displacement"]["branches"], expected, rtol=1e-6)
    merged = world.host(OrbaxLeaves(finished.workdir.merged_params))
    assert record["displacement"]["merged"] == pytest.approx(norm(merged, theta0), rel=1e-6)
    assert 0 < record["displacement"]["merged"] < max(expected)


def test_a_merge_says_how_mergekit_repeats_it(finished):
    text = (finished.workdir.merged / "mergekit.yaml").read_text()
    assert text.startswith("# For mergekit, run in the workdir that holds the branches.")
    found = yaml.safe_load(text)
    assert found["merge_method"] == "linear"
    assert [model["model"] for model in found["models"]] == [f"branches/{k}/hf" for k in range(4)]
    weights = [model["parameters"]["weight"] for model in found["models"]]
    assert weights == read_json(finished.workdir.merge_record)["weights"]


@pytest.mark.parametrize(("options", "known"), [('{"trim_scope": "global"}', False), ("{}", True)])
def test_a_merge_that_mergekit_does_not_know_says_nothing(finished, tmp_path, options, known):
    run = elsewhere(finished, tmp_path, **{"merge.method": "ties", "merge.options": options})
    assert run_stages(run, ("merge",))
    assert (run.workdir.merged / "mergekit.yaml").exists() == known


def merged_by(finished, folder, method):
    """A copy of a finished run, to be merged again by another operator."""
    run = world.copied(finished, folder, overwrite=True, **{"diagnostics.examples": 2})
    with run.config.unlocked():
        run.config.merge.method = method
    return run


def diagnosed(run, name):
    run_diagnostics(run, [name])
    return read_json(run.workdir.diagnostic(name))["result"]


def test_a_uniform_merge_records_its_weights_and_eq_11_holds_with_them(finished, tmp_path):
    tokens = read_json(finished.workdir.merge_record)["tokens"]
    assert len(set(tokens)) > 1
    run = merged_by(finished, tmp_path, "uniform")
    run_stages(run, ("merge", "export"))
    record = read_json(run.workdir.merge_record)
    assert (record["weights"], record["weighted_mean"], record["tokens"]) == ([0.25] * 4, True, tokens)
    assert abs(diagnosed(run, "displacement")["parallel_axis"]["residual"]) < 1e-6
    found = diagnosed(run, "gain")
    assert found["weights"] == [0.25] * 4
    assert found["mean_branch_loss"] == pytest.approx(np.mean(found["branch_losses"]))
    card = (run.workdir.merged_hf / "README.md").read_text()
    assert all(f"| {k} | 0.2500 | {count} |" in card for k, count in enumerate(tokens))


@pytest.mark.parametrize(("method", "weights"), [("task_arithmetic", [0.4] * 4), ("ties", None)])
def test_what_holds_for_a_weighted_mean_is_not_defined_for_another_merge(finished, tmp_path, method, weights):
    run = merged_by(finished, tmp_path, method)
    run_stages(run, ("merge", "export"))
    record = read_json(run.workdir.merge_record)
    assert (record["weights"], record["weighted_mean"]) == (weights, False)
    assert diagnosed(run, "displacement")["parallel_axis"] is None
    with pytest.raises(ValueError, match=rf"Thm 3\.1\) is defined for a weighted mean of the branches, and {method} "):
        run_diagnostics(run, ["gain"])
    card = (run.workdir.merged_hf / "README.md").read_text()
    assert "averaged" not in card
    assert ("uses no weights" in card) == (weights is None)
    assert json.loads((run.workdir.merged_hf / "merit.json").read_text())["weights"] == weights


def read_tokens(run):
    """Tokens that each branch reads: places of its rows that are no padding, counted in the batches."""
    cfg, plan = run.config.train, load_partition(run).branches
    sizes = {"epochs": cfg.epochs, "row_length": cfg.row_length, "batch_size": cfg.batch_size, "seed": run.config.seed}
    batches = [training_batches(run.datasets, branch, **sizes).iterator() for branch in plan]
    return [sum(int((batch.segments > 0).sum()) for batch in rows) for rows in batches]


def test_all_tokens_that_a_branch_reads_weigh_it_where_the_config_says_so(finished, tmp_path):
    run = elsewhere(finished, tmp_path, **{"merge.tokens": "all"})
    assert run_stages(run, ("merge",))
    record, counts = read_json(run.workdir.merge_record), read_tokens(finished)
    assert record["all_tokens"] == counts
    assert record["tokens"] == read_json(finished.workdir.merge_record)["tokens"]
    np.testing.assert_allclose(record["weights"], np.array(counts) / sum(counts), rtol=1e-15)
    merged = world.host(OrbaxLeaves(run.workdir.merged_params))
    for path, leaf in merged.items():
        mean = sum(n * branch[path].astype(np.float64) for n, branch in zip(counts, branches(finished), strict=True))
        np.testing.assert_allclose(leaf, mean / sum(counts), rtol=0, atol=1e-6 * np.abs(leaf).max())
    assert "all_tokens" not in read_json(finished.workdir.merge_record)


def test_another_count_of_tokens_is_another_merge(finished, tmp_path):
    run = world.copied(finished, tmp_path, **{"merge.tokens": "all"})
    with pytest.raises(ValueError, match=r'merge\.json was made from other inputs: tokens: "supervised" -> "all"'):
        run_stages(run, ("merge",))
    run = world.copied(finished, tmp_path, overwrite=True, **{"merge.tokens": "all"})
    assert run_stages(run, ("merge",))


def test_an_unknown_count_of_tokens_is_refused(finished, tmp_path):
    run = elsewhere(finished, tmp_path, **{"merge.tokens": "some"})
    with pytest.raises(ValueError, match=r"unknown merge\.tokens 'some'; known: all, supervised"):
        run_stages(run, ("merge",))


def test_a_branch_of_an_earlier_version_is_refused_only_where_all_its_tokens_are_needed(finished, tmp_path):
    changes = {"merge.branches": str(tmp_path / finished.workdir.root.name)}
    shutil.copytree(finished.workdir.root, tmp_path / finished.workdir.root.name)
    path = Workdir.at(tmp_path / finished.workdir.root.name).branch_done(1)
    done = read_json(path)
    del done["all_tokens"]
    write_json(path, done)
    run_stages(elsewhere(finished, tmp_path / "a", **changes), ("merge",))
    run_stages(
        elsewhere(finished, tmp_path / "b", **changes, **{"merge.tokens": "all", "merge.method": "uniform"}), ("merge",)
    )
    run = elsewhere(finished, tmp_path / "c", **changes, **{"merge.tokens": "all"})
    with pytest.raises(
        ValueError, match=r"branches/1/done\.json has no all_tokens: .*merge with merge\.tokens=supervised, or"
    ):
        run_stages(run, ("merge",))


def test_a_record_that_does_not_say_which_weights_were_used_is_refused(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    record = read_json(run.workdir.merge_record)
    del record["weighted_mean"]
    write_json(run.workdir.merge_record, record)
    with pytest.raises(ValueError, match=r"which weights were used: .* merit run --stages=merge --overwrite"):
        read_merge(run)


def test_another_runs_branches_are_merged_again_and_nothing_is_trained(finished, tmp_path):
    run = elsewhere(finished, tmp_path, **{"merge.method": "uniform"})
    assert run_stages(run, ("merge",))
    assert {path.name for path in run.workdir.root.iterdir()} == {"merged", "times.json"}
    merged = world.host(OrbaxLeaves(run.workdir.merged_params))
    for path, leaf in merged.items():
        mean = np.mean([branch[path].astype(np.float64) for branch in branches(finished)], axis=0)
        np.testing.assert_allclose(leaf, mean, rtol=0, atol=1e-6 * np.abs(mean).max())
    assert not run_stages(run, ("merge",))


def test_branches_of_another_recipe_are_refused(finished, tmp_path):
    run = elsewhere(finished, tmp_path, **{"train.learning_rate": 0.5})
    with pytest.raises(ValueError, match=r"branches/0/done\.json .*: train\.learning_rate: 0\.001 -> 0\.5"):
        run_stages(run, ("merge",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merge.options": "{scale: 1}"}, r"merge\.options = '\{scale: 1\}' is not JSON \(.*\); write an object"),
        ({"merge.options": "[1]"}, r"merge\.options = '\[1\]'; expected a JSON object"),
        (
            {"merge.options": '{"scale": 1}'},
            r"merge options: unknown \['scale'\], missing \[\]; token_weighted takes \[\]",
        ),
        ({"merge.method": "interpolate"}, r"unknown \[\], missing \['scale'\]; interpolate takes \['scale'\]"),
        ({"merge.method": "interpolate", "merge.options": '{"scale": 1}'}, "towards one branch; got 4 branches"),
        ({"merge.match": "."}, r"merge\.match moves theta0 towards one branch; there are 4"),
    ],
)
def test_an_option_that_is_wrong_is_named(finished, tmp_path, changes, said):
    if "merge.match" in changes:
        changes = {"merge.match": str(finished.workdir.root)}
    run = elsewhere(finished, tmp_path, **changes)
    with pytest.raises(ValueError, match=said):
        run_stages(run, ("merge",))
    assert not run.workdir.merged_params.exists()


def test_a_model_to_match_that_is_not_there_is_named(finished, tmp_path):
    run = elsewhere(finished, tmp_path, **{"merge.match": str(tmp_path / "nowhere")})
    with pytest.raises(ValueError, match=r"nowhere/merged/merge\.json is missing"):
        run_stages(run, ("merge",))


def test_the_options_that_were_used_are_recorded(finished, tmp_path):
    run = elsewhere(
        finished, tmp_path, **{"merge.method": "dare_linear", "merge.options": '{"drop_rate": 0.5}', "seed": 0}
    )
    run_stages(run, ("merge",))
    assert read_json(run.workdir.merge_record)["options"] == {"scale": 1.0, "drop_rate": 0.5, "seed": 0}


def test_what_dare_drops_follows_the_seed_of_the_run(finished, tmp_path):
    run = elsewhere(finished, tmp_path, **{"merge.method": "dare_linear"})
    with run.config.unlocked():
        run.config.seed = 7
    assert merge_options(run) == {"seed": 7}


def test_excluded_parameters_stay_theta0s_and_the_others_are_merged(finished, tmp_path):
    run = elsewhere(finished, tmp_path, **{"merge.exclude": ("^layers/mlp/up/", "norm")})
    run_stages(run, ("merge",))
    theta0, plain = world.host(run.theta0.leaves()), world.host(OrbaxLeaves(finished.workdir.merged_params))
    merged = world.host(OrbaxLeaves(run.workdir.merged_params))
    for path, leaf in merged.items():
        kept = path.startswith("layers/mlp/up/") or "norm" in path
        np.testing.assert_array_equal(leaf, theta0[path] if kept else plain[path], err_msg=path)
    assert read_json(run.workdir.merge_record)["inputs"]["exclude"] == ["^layers/mlp/up/", "norm"]
    assert not (run.workdir.merged / "mergekit.yaml").exists()
    record, plain_record = (read_json(one.workdir.merge_record) for one in (run, finished))
    assert not record["weighted_mean"]
    assert record["displacement"]["branches"] == plain_record["displacement"]["branches"]
    run_stages(run, ("export",))
    assert (
        "As in theta0: the parameters whose paths have `^layers/mlp/up/` or `norm`."
        in (run.workdir.merged_hf / "README.md").read_text()
    )
    again = run.derive(configured(finished, **{"merge.branches": str(finished.workdir.root)}), run.workdir)
    with pytest.raises(ValueError, match="exclude"):
        run_stages(again, ("merge",))


@pytest.mark.parametrize(
    ("exclude", "said"), [(("router",), "'router' is found in no parameter"), ((".",), "nothing to merge")]
)
def test_what_excludes_nothing_or_all_is_refused(finished, tmp_path, exclude, said):
    with pytest.raises(ValueError, match=f"merge.exclude.*{said}"):
        run_stages(elsewhere(finished, tmp_path, **{"merge.exclude": exclude}), ("merge",))
