"""A merge of other branches or by other operators: what it gives, what it records, what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.pipeline.merge_options import merge_options
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_json
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


def test_a_merge_that_mergekit_does_not_know_says_nothing(finished, tmp_path):
    run = elsewhere(finished, tmp_path, **{"merge.method": "ties"})
    assert run_stages(run, ("merge",))
    assert not (run.workdir.merged / "mergekit.yaml").exists()


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
