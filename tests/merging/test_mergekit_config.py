"""The configuration that mergekit is given, and that both merge alike: see golden/make.py."""

import json
import os
import shutil

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from merit_jax.launch.wiring.merge_folders import merge_folders
from merit_jax.merging import MERGERS
from merit_jax.merging.mergekit_config import RECIPES, recipe
from merit_jax.merging.options import resolve_options
from merit_jax.models import open_pretrained
from tests.merging.golden.cases import CASES, FOLDER
from tests.support import world


@pytest.mark.parametrize("name", CASES)
def test_mergekit_makes_the_same_of_the_configuration_that_a_merge_writes(tmp_path, monkeypatch, name):
    case, expected = CASES[name], FOLDER / "expected"
    monkeypatch.chdir(case.folder)
    merge_folders("base", case.models, case.weights, case.method, case.options, str(tmp_path / "out"))
    assert (tmp_path / "out" / "mergekit.yaml").read_text() == (expected / f"{name}.yaml").read_text()
    ours, theirs = load_file(tmp_path / "out" / "model.safetensors"), load_file(expected / f"{name}.safetensors")
    assert ours.keys() == theirs.keys()
    moved = max(np.abs(theirs[key] - tensor).max() for key, tensor in load_file("base/model.safetensors").items())
    assert moved > 0.05
    for key, tensor in theirs.items():
        np.testing.assert_allclose(ours[key], tensor, rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_the_stacked_layers_of_a_run_merge_as_mergekit_merges_their_tensors(tmp_path, name):
    case = CASES[name]
    base, *models = (open_pretrained(case.folder / model) for model in ("base", *case.models))
    assert any(path.startswith("layers/") and leaf.shape[0] > 1 for path, leaf in base.paths().items())
    weights = case.weights or [1 / len(models)] * len(models)
    merge = MERGERS[case.method].prepare(base, models, weights, case.options)
    shutil.copytree(case.folder / "base", tmp_path / "theirs")
    shutil.copyfile(FOLDER / "expected" / f"{name}.safetensors", tmp_path / "theirs" / "model.safetensors")
    for path, leaf in world.host(open_pretrained(tmp_path / "theirs")).items():
        np.testing.assert_allclose(merge.value(path), leaf, rtol=0, atol=1e-6, err_msg=path)


def content(method, weights=(0.25, 0.75), models=("a", "b"), **options):
    settled = resolve_options(MERGERS[method].leaf, options)
    used = MERGERS[method].used_weights(weights, settled).values
    text = recipe(method, settled, "base", models, used, {"bfloat16"})
    return None if text is None else yaml.safe_load(text)


def own(found, parameter):
    return [model["parameters"][parameter] for model in found["models"]]


def test_linear_methods_are_averages_with_weights_as_they_are():
    assert own(content("token_weighted"), "weight") == [0.25, 0.75]
    assert own(content("uniform"), "weight") == [0.5, 0.5]
    assert content("token_weighted")["parameters"] == {"normalize": False}
    assert "base_model" not in content("uniform")
    towards = content("interpolate", (1.0,), ("a",), scale=0.25)
    assert [model["model"] for model in towards["models"]] == ["base", "a"]
    assert own(towards, "weight") == [0.75, 0.25]


def test_types_are_float32_inside_and_the_bases_outside():
    assert (content("uniform")["dtype"], content("uniform")["out_dtype"]) == ("float32", "bfloat16")
    mixed = yaml.safe_load(recipe("uniform", {}, "base", ["a"], (1.0,), {"bfloat16", "float32"}))
    assert "out_dtype" not in mixed


def test_dare_divides_by_what_is_kept_and_says_that_the_draw_differs():
    found = content("dare_linear", drop_rate=0.75, scale=0.5)
    assert found["parameters"] == {"normalize": False, "rescale": False, "lambda": 2.0}
    assert (own(found, "density"), own(found, "weight")) == ([0.25, 0.25], [0.25, 0.75])
    assert recipe("dare_linear", {"drop_rate": 0.5, "scale": 1.0}, "base", ["a"], (1.0,)).startswith(
        "# What is dropped"
    )


@pytest.mark.parametrize(
    ("options", "weights", "votes"),
    [
        ({}, (0.25, 0.75), [1.0, 1.0]),
        ({"weighted_election": True, "weighted_mean": True}, (0.25, 0.75), [0.25, 0.75]),
        ({"weighted_election": True}, (0.5, 0.5), [1.0, 1.0]),
        ({"weighted_mean": True}, (0.25, 0.75), None),
    ],
)
def test_weights_enter_election_and_mean_alike_or_there_is_no_configuration(options, weights, votes):
    for found in (
        content("ties", weights, **options),
        content("dare_ties", weights, **options),
    ):
        assert (found and own(found, "weight")) == votes


def test_where_statistics_are_not_by_tensor_there_is_no_configuration():
    assert content("ties")["merge_method"] == "ties"
    assert content("ties", trim_scope="global") is None
    assert content("ties", trim_scope="global", density=1)["merge_method"] == "ties"
    assert content("model_stock")["merge_method"] == "model_stock"


def test_other_methods_and_a_base_among_the_models_have_none():
    assert RECIPES.keys() < MERGERS.keys()
    for method in MERGERS.keys() - RECIPES.keys():
        assert recipe(method, {}, "base", ["a"], (1.0,)) is None
    assert content("task_arithmetic", models=("base", "a")) is None
    assert content("token_weighted", models=("base", "a"))["merge_method"] == "linear"


def test_names_of_folders_survive_the_configuration():
    names = ["a: b", "- x # y", json.dumps("ü"), os.path.join("..", "runs", "1")]
    found = yaml.safe_load(recipe("uniform", {}, "base", names, (0.25,) * 4))
    assert [model["model"] for model in found["models"]] == names
