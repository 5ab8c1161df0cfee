"""A branch that is told to stop: every process saves at one step, and the restart goes on, on whatever devices."""

import json
import shutil
import signal
from collections import Counter

import numpy as np
import pytest

from merit_jax.training.trackers.interface import flat_values
from tests.support import commands
from tests.support.commands import address, branch, close, same_bits, start, steps_saved, until, wait, with_partition

pytestmark = pytest.mark.slow

RECORDING = """
import json, runpy, time
import numpy as np
from merit_jax.training import loop
place, note = loop.place_batch, open("{note}", "a")

def slow(batch, mesh, leading=0):
    flat = [np.asarray(leaf).reshape(-1, leaf.shape[-1]) for leaf in (batch.tokens, batch.segments)]
    for tokens, segments in zip(*flat):
        for segment in range(1, segments.max() + 1):
            print(json.dumps(tokens[segments == segment].tolist()), file=note, flush=True)
    time.sleep({seconds})
    return place(batch, mesh, leading)

loop.place_batch = slow
runpy.run_module("merit_jax.launch.branch", run_name="__main__")
"""
"""`merit branch`, with a pause before every step and a line in a file for every example that a step is made on."""

LONG = (
    "--branch=0",
    "--config.train.epochs=6.0",
    "--config.train.batch_size=4",
    "--config.train.checkpoint_every=1000",
    "--config.train.eps=1e-4",
    "--config.train.held_out_every=3",
    "--config.train.held_out_examples=3",
)
"""AdamW with a large ε: with a small one, rounding of a gradient that is nearly zero comes back in full size."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Theta0, data, a config file, a partition, and a whole branch 0 on one device in `calm`."""
    root = commands.world_at(tmp_path_factory.mktemp("multihost"))
    wait(start("run", root, "one", "--stages=mixture,gradients,conflict,partition"))
    with_partition(root, "calm")
    wait(started(root, "calm"))
    return root


def started(root, workdir, *arguments, seconds=0.0, note=None, devices=1):
    code = RECORDING.format(note=root / (note or f"{workdir}.txt"), seconds=seconds)
    return start(code, root, workdir, *LONG, *arguments, devices=devices)


def together(root, workdir, seconds=0.0, devices=1):
    where = address()
    return [
        started(
            root, workdir, f"--distributed={where},2,{i}", seconds=seconds, note=f"{workdir}{i}.txt", devices=devices
        )
        for i in range(2)
    ]


def lines(root, workdir):
    path = root / workdir / "branches" / "0" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def seen(root, *notes):
    return Counter(line for note in notes for line in (root / note).read_text().splitlines())


def interrupted(root, workdir, processes):
    """Sends SIGTERM to the last process once a few steps are done; the step at which all have saved."""
    until(lambda: len(lines(root, workdir)) >= 4, *processes)
    processes[-1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [75] * len(processes), outputs
    (step,) = steps_saved(root / workdir / "branches" / "0")
    assert all(f"preempted, and saved at step {step} of" in output for output in outputs), outputs
    assert 3 <= step < lines(root, "calm")[-1]["step"]
    assert not (root / workdir / "branches" / "0" / "done.json").exists()
    assert not (root / workdir / "branches" / "0.lease").exists()
    return step


def same_curve(root, workdir):
    calm, other = lines(root, "calm"), lines(root, workdir)
    for key in ("step", "tokens", "count_by_dataset"):
        assert [line.get(key) for line in other] == [line.get(key) for line in calm]
    assert {"loss", "held_out_loss"} <= other[-1].keys()
    for found, expected in zip(map(flat_values, other), map(flat_values, calm), strict=True):
        assert found.keys() == expected.keys()
        losses = [name for name in expected if "loss" in name or name.startswith("held_out")]
        np.testing.assert_allclose(*([values[name] for name in losses] for values in (found, expected)), rtol=1e-4)


def test_every_example_of_every_epoch_is_visited_once(root):
    plan = json.loads((root / "calm" / "partition.json").read_text())["branches"][0]
    assert seen(root, "calm.txt").total() == 6 * plan["samples"]
    assert not [count for count in seen(root, "calm.txt").values() if count % 6]


@pytest.fixture(scope="module")
def stopped(root):
    """The workdir of a branch of two processes, both of which have saved at the notice to one; not to be written to."""
    with_partition(root, "stopped")
    interrupted(root, "stopped", together(root, "stopped", seconds=0.3))
    return root / "stopped"


def test_a_notice_to_one_process_makes_both_save_at_the_same_step_and_the_restart_ends_bit_equal(root, stopped):
    with_partition(root, "calm2")
    wait(*together(root, "calm2"))
    shutil.copytree(stopped, root / "told2")
    wait(*together(root, "told2"))
    same_bits(branch(root, "told2", 0), branch(root, "calm2", 0))
    same_curve(root, "told2")


def test_a_branch_of_four_devices_goes_on_with_two(root):
    with_partition(root, "four")
    interrupted(root, "four", [started(root, "four", seconds=0.3, devices=4)])
    wait(started(root, "four", devices=2))
    assert seen(root, "four.txt") == seen(root, "calm.txt")
    same_curve(root, "four")
    close(branch(root, "calm", 0), branch(root, "four", 0))


def test_a_branch_of_two_processes_goes_on_with_one(root, stopped):
    shutil.copytree(stopped, root / "pair")
    wait(started(root, "pair"))
    assert seen(root, "stopped0.txt", "stopped1.txt", "pair.txt") == seen(root, "calm.txt")
    same_curve(root, "pair")
    close(branch(root, "calm", 0), branch(root, "pair", 0))
