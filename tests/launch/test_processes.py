"""Whole commands in fresh processes: alone on another machine, and on other numbers of devices."""

import numpy as np
import pytest

from merit_jax.checkpoints.readers import OrbaxLeaves
from tests.support import commands, world
from tests.support.commands import address, branch, close, read, same_bits, start, wait, with_partition

pytestmark = pytest.mark.slow

STAGES = "mixture,gradients,conflict,partition,train,merge,export"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Theta0, data, a config file, and a run on one device in `one`."""
    root = commands.world_at(tmp_path_factory.mktemp("processes"))
    wait(start("run", root, "one", f"--stages={STAGES}"))
    return root


def test_a_branch_needs_theta0_data_and_partition_only(root):
    with_partition(root, "alone")
    wait(start("branch", root, "alone", "--branch=1"))
    same_bits(branch(root, "alone", 1), branch(root, "one", 1))
    assert not (root / "alone" / "gradients").exists()


def same_run(root, workdir):
    """`workdir` has the gradients, branches and merge of `one`, and files whose writing was not disturbed."""
    one, other = root / "one", root / workdir
    names = sorted(path.name for path in (one / "gradients").glob("*.npy"))
    close({n: np.load(one / "gradients" / n) for n in names}, {n: np.load(other / "gradients" / n) for n in names})
    plans, merges = (
        [read(folder / name) for folder in (one, other)] for name in ("partition.json", "merged/merge.json")
    )
    assert plans[0]["branches"] == plans[1]["branches"]
    assert merges[0]["weights"] == merges[1]["weights"]
    for k in range(2):
        close(branch(root, "one", k), branch(root, workdir, k))
        lines = [(folder / "branches" / str(k) / "metrics.jsonl").read_text().count("\n") for folder in (one, other)]
        assert lines[0] == lines[1]
    close(*(world.host(OrbaxLeaves(folder / "merged" / "params")) for folder in (one, other)))
    close(*(world.exported(folder / "merged" / "hf") for folder in (one, other)))
    assert not [path for path in other.rglob("*") if path.name.endswith("tmp")]


def test_eight_devices_give_the_same_run(root):
    wait(start("run", root, "eight", f"--stages={STAGES}", "--config.mesh.fsdp=4", "--config.mesh.tensor=2", devices=8))
    same_run(root, "eight")


def test_two_processes_give_the_same_run(root):
    where = address()
    arguments = [[f"--stages={STAGES}", f"--distributed={where},2,{index}"] for index in range(2)]
    wait(*(start("run", root, "two", *given, devices=2) for given in arguments))
    same_run(root, "two")


def test_two_processes_search_the_same_merge_weights(root):
    changes = ("merge.search_evaluations=3", "evaluate.mixture_examples=2", f"merge.branches={root / 'one'}")
    words = ["--stages=search,merge", *(f"--config.{change}" for change in changes)]
    where = address()
    wait(
        start("run", root, "searched-one", *words),
        *(start("run", root, "searched-two", *words, f"--distributed={where},2,{i}", devices=2) for i in range(2)),
    )
    one, two = (read(root / f"searched-{name}" / "search.json")["points"] for name in ("one", "two"))
    assert [point["coordinates"] for point in one] == [point["coordinates"] for point in two]
    np.testing.assert_allclose([point["score"] for point in one], [point["score"] for point in two], rtol=1e-4)
    close(*(world.host(OrbaxLeaves(root / f"searched-{name}" / "merged" / "params")) for name in ("one", "two")))
