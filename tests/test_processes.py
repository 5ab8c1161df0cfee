"""Whole commands in fresh processes: killed and started again, alone on another machine, on other numbers of devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from merit_jax.merge.leaves import OrbaxLeaves
from merit_jax.train.checkpoint import params_directory
from merit_jax.workdir import Workdir
from tests import world

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
STAGES = "mixture,gradients,conflict,partition,train,merge,export"
CONFIG = """
from configs import common

def get_config(method="merit1d"):
    c = common.get_config().unlock()
    c.model.path = "{root}/theta0"
    c.mixture.path = "{root}/data/*.train.jsonl"
    c.mixture.max_length = 96
    c.gradients.update({{"examples": 8, "buckets": (96,)}})
    c.train.update({{"row_length": 96, "learning_rate": 1e-3, "epochs": 3.0, "checkpoint_every": 1, "log_every": 1}})
    return common.with_method(c.lock(), method)
"""
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def start(command, root, workdir, *arguments, devices=1):
    """A command of launch/, or given as -c and code, in a process of its own."""
    flags = f"{FAST_COMPILE} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [
            *(sys.executable, *(("-m", f"launch.{command}") if command.isidentifier() else ("-c", command))),
            f"--config={root}/config.py",
            *(f"--workdir={root / workdir}", f"--compilation_cache={root}/compiled", *arguments),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


COUNTING = """
import atexit, pathlib, runpy, sys
from merit_jax.data import batching
fill, read = batching.fill_row, []
batching.fill_row = lambda examples, space: (read.append(len(examples)), fill(examples, space))[1]
atexit.register(lambda: pathlib.Path("{note}").write_text(str(sum(map(bool, read)))))
runpy.run_module("launch.branch", run_name="__main__")
"""


def wait(*processes):
    try:
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Theta0, data, a config file, and a run on one device in `one`."""
    root = tmp_path_factory.mktemp("processes")
    world.checkpoint(root / "theta0")
    world.mixture(root / "data")
    (root / "config.py").write_text(CONFIG.format(root=root))
    wait(start("run", root, "one", f"--stages={STAGES}"))
    return root


def read(path):
    return json.loads(path.read_text())


def branch(root, workdir, k):
    return world.host(OrbaxLeaves(params_directory(Workdir.at(root / workdir).branch(k) / "checkpoints")))


def with_partition(root, workdir):
    """A workdir with the partition of `one` and nothing else."""
    (root / workdir).mkdir()
    (root / workdir / "partition.json").write_bytes((root / "one" / "partition.json").read_bytes())


def same_bits(a, b):
    assert a.keys() == b.keys()
    assert all(a[path].tobytes() == b[path].tobytes() for path in a)


def test_a_branch_needs_theta0_data_and_partition_only(root):
    with_partition(root, "alone")
    wait(start("branch", root, "alone", "--branch=1"))
    same_bits(branch(root, "alone", 1), branch(root, "one", 1))
    assert not (root / "alone" / "gradients").exists()


def test_a_killed_branch_started_again_ends_bit_equal(root):
    with_partition(root, "killed")
    process = start("branch", root, "killed", "--branch=0")
    checkpoints = root / "killed" / "branches" / "0" / "checkpoints"
    while not (checkpoints.exists() and any(path.name.isdigit() for path in checkpoints.iterdir())):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    died_at = sorted(path.name for path in checkpoints.iterdir())
    assert not (root / "killed" / "branches" / "0" / "done.json").exists(), died_at
    wait(start("branch", root, "killed", "--branch=0"))
    same_bits(branch(root, "killed", 0), branch(root, "one", 0))
    done = [read(root / name / "branches" / "0" / "done.json") for name in ("one", "killed")]
    assert [d["tokens"] for d in done] == [done[0]["tokens"]] * 2


def close(a, b):
    """Within 1e-5 of the scale of each."""
    for path in a:
        np.testing.assert_allclose(b[path], a[path], rtol=0, atol=1e-5 * np.abs(a[path]).max(), err_msg=path)


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
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*listener.getsockname())
    arguments = [[f"--stages={STAGES}", f"--distributed={address},2,{index}"] for index in range(2)]
    wait(*(start("run", root, "two", *given, devices=2) for given in arguments))
    same_run(root, "two")


def test_two_processes_share_the_reading_of_a_branch_and_end_like_one(root):
    for workdir in ("single", "shared"):
        with_partition(root, workdir)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*listener.getsockname())

    def counting(workdir, note, *arguments):
        return start(COUNTING.format(note=root / note), root, workdir, "--branch=0", *arguments, devices=2)

    wait(counting("single", "single.txt"))
    wait(*(counting("shared", f"{index}.txt", f"--distributed={address},2,{index}") for index in range(2)))
    whole, *parts = (int((root / name).read_text()) for name in ("single.txt", "0.txt", "1.txt"))
    assert sum(parts) == whole
    assert min(parts) > 0
    close(branch(root, "single", 0), branch(root, "shared", 0))
