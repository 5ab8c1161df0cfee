"""Every config file loads with every method, and has just the keys of common.py."""

import importlib
from pathlib import Path

import pytest

from configs import common
from merit_jax.branches import SHARINGS
from merit_jax.merge import MERGERS
from merit_jax.partition import PARTITIONERS

FILES = sorted(
    path.stem for path in Path(common.__file__).parent.glob("*.py") if path.stem not in ("__init__", "common")
)
METHODS = {
    "joint": ("joint", 1),
    "merit1d": ("median_split", 2),
    "merit3d": ("median_split", 8),
    "random4": ("random", 4),
    "kmeans3": ("kmeans", 3),
    "conflict4": ("conflict_induced", 4),
    "soup2": ("replicate", 2),
    "examples8": ("examples", 8),
}


def keys(config):
    return {
        f"{k}.{inner}" if hasattr(v, "keys") else k
        for k, v in config.items()
        for inner in (v if hasattr(v, "keys") else [""])
    }


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("method", METHODS)
def test_a_config_takes_every_method_and_adds_no_key(name, method):
    config = importlib.import_module(f"configs.{name}").get_config(method)
    assert (config.method, config.partition.method, config.partition.groups) == (method, *METHODS[method])
    assert keys(config) == keys(common.get_config())
    assert config.is_locked


@pytest.mark.parametrize("name", FILES)
def test_a_config_file_opens_with_claim_cost_and_command(name):
    text = importlib.import_module(f"configs.{name}").__doc__
    assert all(f"\n{part}:" in text for part in ("Claim", "Cost", "Command"))


def test_every_method_names_a_partitioner_and_a_merger_that_exist():
    for partition, merge in common.METHODS.values():
        assert partition in {**PARTITIONERS, **SHARINGS}
        assert merge in MERGERS


@pytest.mark.parametrize("method", ["merit", "merit2", "random", "Joint", "soup-2", ""])
def test_an_unknown_method_lists_the_known_ones(method):
    with pytest.raises(
        ValueError, match=r"unknown method .*; known: joint, meritRd, randomK, kmeansK, conflictK, soupK"
    ):
        common.with_method(common.get_config(), method)


def test_the_shipped_tasks_are_those_of_the_quickstart():
    tasks = {path.name.removesuffix(".train.jsonl") for path in Path("examples/bigbench").glob("*.train.jsonl")}
    included = importlib.import_module("configs.quickstart").get_config().mixture.include
    assert len(tasks) == 16
    assert len(included) == 8
    assert set(included) <= tasks
