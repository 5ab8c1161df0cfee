"""Commands of launch/ in processes of their own, in a tiny world."""

import json
import socket
import time

import jax
import numpy as np

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.workdir.paths import Workdir
from tests.support import compiler, world
from tests.support.zygote import REPOSITORY, WITHOUT_TORCH, Command

CONFIG = """
from merit_jax.configs import common

def get_config(method="merit1d"):
    c = common.get_config().unlock()
    c.model.path = "{root}/{theta0}"
    c.mixture.path = "{root}/data/{mixture}"
    c.mixture.max_length = 96
    c.gradients.update({{"examples": 8, "buckets": (96,)}})
    c.train.update({{"row_length": 96, "learning_rate": 1e-3, "checkpoint_every": 1, "log_every": 1, **{train}}})
    return common.with_method(c.lock(), method)
"""


def write_config(path, root, *, theta0="theta0", mixture="*.train.jsonl", **train):
    """A config file on a checkpoint and data under a root; `train` are keys of its section of that name."""
    path.write_text(CONFIG.format(root=root, theta0=theta0, mixture=mixture, train=train))


def start(command, root, workdir, *arguments, devices=1):
    """A command of launch/, or Python code that runs one, in a process of its own."""
    code = command if not command.isidentifier() else module(command)
    cache = f"--compilation_cache={jax.config.jax_compilation_cache_dir}"
    argv = [command, f"--config={root}/config.py", f"--workdir={root / workdir}", cache, *arguments]
    return Command(code, argv, REPOSITORY, environment(devices))


def module(name):
    """Python code that runs a command of launch/."""
    return f"import runpy; runpy.run_module('merit_jax.launch.{name}', run_name='__main__')"


def environment(devices=1):
    """Variables under which a command has so many virtual devices."""
    flags = f"{compiler.FAST} {compiler.devices(devices)}"
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": WITHOUT_TORCH}


def ends(engine, count, seconds=30):
    """How the next so many jobs of an engine of merit cluster end."""
    found = []

    def enough():
        found.extend(engine.ended())
        return len(found) >= count

    until(enough, seconds=seconds)
    return found


def world_at(root):
    """Theta0, data and `config.py` under a folder."""
    world.checkpoint(root / "theta0")
    world.mixture(root / "data")
    write_config(root / "config.py", root, epochs=3.0)
    return root


def wait(*processes):
    try:
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.close()


def address():
    """HOST:PORT on this machine, free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return "{}:{}".format(*listener.getsockname())


def steps_saved(folder):
    """Steps of the checkpoints of a branch's folder."""
    checkpoints = folder / "checkpoints"
    return sorted(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit()) if checkpoints.exists() else []


def until(condition, *processes, seconds=240):
    """Waits for a condition while processes run."""
    deadline = time.monotonic() + seconds
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


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


def close(a, b):
    """Within 1e-5 of the scale of each."""
    for path in a:
        np.testing.assert_allclose(b[path], a[path], rtol=0, atol=1e-5 * np.abs(a[path]).max(), err_msg=path)
