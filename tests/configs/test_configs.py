"""Every config file loads with every method, and has just the keys of common.py."""

import functools
import importlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from merit_jax.configs import common
from merit_jax.conflict import CENTRINGS
from merit_jax.core import tree
from merit_jax.merging import MERGERS
from merit_jax.models import build
from merit_jax.models.families.registry import parse_config
from merit_jax.partition import ASSIGNMENTS, PARTITIONERS
from merit_jax.pipeline.partition_mixture import SIMILARITIES
from tests.models.processing.test_tiled_images import SMOLVLM_256M
from tests.support.tiny_qwen_vl import PUBLISHED

FILES = sorted(
    path.stem for path in Path(common.__file__).parent.glob("*.py") if path.stem not in ("__init__", "common")
)
METHODS = {
    "joint": ("joint", 1),
    "merit1d": ("median_split", 2),
    "merit3d": ("median_split", 8),
    "gram2d": ("median_split", 4),
    "double1d": ("median_split", 2),
    "raw2d": ("median_split", 4),
    "curvature2d": ("median_split", 4),
    "random4": ("random", 4),
    "alike4": ("alike", 4),
    "kmeans3": ("kmeans", 3),
    "conflict4": ("conflict_induced", 4),
    "soup2": ("replicate", 2),
    "examples8": ("examples", 8),
}
VISION = {
    "qwen2_5_vl_3b_vision_flan": ("3B", {"decoder"}),
    "smolvlm_256m": ("256M", {"decoder"}),
    "llava_7b_stage1": ("7B", {"projector"}),
    "llava_7b_stage1_5": ("7B", {"projector", "decoder"}),
    "llava_7b_stage2": ("7B", {"projector", "decoder"}),
    "llava_7b_merit": ("7B", {"decoder"}),
}
"""Config file -> its model, and the parts of it that are trained."""

IMAGE_TOKENS = {"3B": (784 // 28) ** 2, "7B": (784 // 28) ** 2, "256M": (4 * 4 + 1) * 64}
"""The largest image: 784x784 pixels, or 4x4 tiles and the whole."""


def keys(config):
    return {
        f"{k}.{inner}" if hasattr(v, "keys") else k
        for k, v in config.items()
        for inner in (v if hasattr(v, "keys") else [""])
    }


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("method", METHODS)
def test_a_config_takes_every_method_and_adds_no_key(name, method):
    config = importlib.import_module(f"merit_jax.configs.{name}").get_config(method)
    assert (config.method, config.partition.method, config.partition.groups) == (method, *METHODS[method])
    assert keys(config) == keys(common.get_config())
    assert config.is_locked


@pytest.mark.parametrize("name", FILES)
def test_a_config_file_opens_with_claim_cost_and_command(name):
    """A stage of another config's basin may say which one runs it instead."""
    text = importlib.import_module(f"merit_jax.configs.{name}").__doc__
    if whose := re.search(r"Run by `--config=configs/(\w+)\.py --config\.basin\.rebuild=True`", text):
        stages = importlib.import_module(f"merit_jax.configs.{whose[1]}").get_config().basin.stages
        assert f"configs/{name}.py" in stages
        return
    assert all(f"\n{part}:" in text for part in ("Claim", "Cost", "Command"))


@functools.cache
def paths(kind):
    """A tree like the parameters of a published model, of empty leaves."""
    abstract = build(parse_config({**PUBLISHED, "256M": SMOLVLM_256M}[kind], kind)).abstract
    return jax.tree.map(lambda leaf: np.zeros(0), abstract)


@pytest.mark.parametrize("name", VISION)
def test_a_vision_config_trains_whole_parts_and_freezes_the_others(name):
    config, (kind, parts) = importlib.import_module(f"merit_jax.configs.{name}").get_config(), VISION[name]
    trained, frozen = tree.split(paths(kind), config.train.trainable)
    assert {path.split("/")[0] for path in trained} == parts
    assert {path.split("/")[0] for path in frozen} == {"vision", "projector", "decoder"} - parts


@pytest.mark.parametrize("name", FILES)
def test_what_a_config_keeps_of_an_example_fits_its_rows_and_buckets(name):
    config = importlib.import_module(f"merit_jax.configs.{name}").get_config()
    inputs = config.mixture.max_length - 1
    assert config.train.row_length >= inputs
    assert config.train.batch_size % config.train.micro_batches == 0
    for section in (config.gradients, config.evaluate):
        assert max(section.buckets) >= inputs
    largest = IMAGE_TOKENS[VISION[name][0]] if name in VISION else 0
    assert (config.train.image_tokens or config.train.row_length) >= largest
    for section in (config.gradients, config.evaluate):
        assert max(section.image_buckets or (inputs,)) >= largest


def test_stages_of_a_basin_are_config_files():
    for name in FILES:
        for file in importlib.import_module(f"merit_jax.configs.{name}").get_config().basin.stages:
            assert Path(file).is_file(), name


def test_every_method_names_a_partitioner_and_a_merger_that_exist():
    for method in common.METHODS.values():
        assert method.partition in {**PARTITIONERS, **ASSIGNMENTS}
        assert method.merge in MERGERS
        assert method.similarity in SIMILARITIES
        assert method.centring in CENTRINGS


@pytest.mark.parametrize("method", ["merit", "merit2", "random", "Joint", "soup-2", ""])
def test_an_unknown_method_lists_the_known_ones(method):
    known = "joint, meritRd, gramRd, doubleRd, rawRd, curvatureRd, randomK, alikeK, kmeansK, conflictK"
    with pytest.raises(ValueError, match=f"unknown method .*; known: {known}"):
        common.with_method(common.get_config(), method)


def test_the_shipped_tasks_are_those_of_the_quickstart():
    tasks = {path.name.removesuffix(".train.jsonl") for path in Path("examples/bigbench").glob("*.train.jsonl")}
    included = importlib.import_module("merit_jax.configs.quickstart_text").get_config().mixture.include
    assert len(tasks) == 16
    assert len(included) == 8
    assert set(included) <= tasks
