"""`merit cluster` with the launcher `local`: whatever happens to branches and supervisors, the merge has the same bits."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.launch.console.exit_codes import MISTAKE
from merit_jax.workdir.lease import held
from merit_jax.workdir.paths import Workdir
from merit_jax.workdir.process import Process
from tests.support import commands, world
from tests.support.commands import read, same_bits, start, until, wait, with_partition

pytestmark = pytest.mark.slow

STAGES = "mixture,gradients,conflict,partition,train,merge"
LONGER = ("--config.train.epochs=4.0", "--config.train.batch_size=2", "--config.train.checkpoint_every=2")
DRIVER = ("--after=merge", "--interval=0.1", *LONGER)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run of two branches by `merit run`, undisturbed, in `one`."""
    root = commands.world_at(tmp_path_factory.mktemp("cluster"))
    wait(start("run", root, "one", f"--stages={STAGES}", *LONGER))
    return root


def merged(root, workdir):
    return world.host(OrbaxLeaves(root / workdir / "merged" / "params"))


def record(root, workdir, k):
    path = root / workdir / "branches" / str(k) / "host.json"
    return read(path) if path.exists() else None


def leases(root, workdir):
    return list((root / workdir).rglob("*.lease"))


def training(root, workdir, k):
    """Whether branch k has a checkpoint and is not finished."""
    folder = root / workdir / "branches" / str(k)
    assert not (folder / "done.json").exists(), "too fast to be disturbed"
    return record(root, workdir, k) is not None and bool(commands.steps_saved(folder))


def test_an_empty_workdir_is_partitioned_and_merged_whatever_happens_to_branches_and_supervisors(root):
    driver = start("cluster", root, "killed", *DRIVER)
    until(lambda: training(root, "killed", 0), driver)
    os.kill(record(root, "killed", 0)["pid"], signal.SIGKILL)
    until(lambda: record(root, "killed", 0)["starts"] == 2, driver)
    driver.send_signal(signal.SIGTERM)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 75, output
    assert "run the same command again" in output
    assert not leases(root, "killed")
    assert not (root / "killed" / "branches" / "0" / "done.json").exists()
    wait(*(start("cluster", root, "killed", *DRIVER) for _ in range(2)))
    same_bits(merged(root, "one"), merged(root, "killed"))
    for k, starts in enumerate((3, 1)):
        done, host = read(root / "killed" / "branches" / str(k) / "done.json"), record(root, "killed", k)
        assert done["tokens"] > 0
        assert len(done["fingerprint"]) == 64
        assert (host["starts"], host["steps"], host["processes"]) == (starts, done["steps"], 1)
    assert not leases(root, "killed")


def test_a_branch_that_another_process_trains_is_refused(root):
    with_partition(root, "held")
    with held(Workdir.at(root / "held").branch_lease(0), "branch 0"):
        second = start("branch", root, "held", "--branch=0", *LONGER)
        output, _ = second.communicate(timeout=120)
    assert second.returncode == 75, output
    assert f"branch 0 is held by {Process.this()}" in output


def test_a_mistake_is_reported_and_not_retried(root):
    with_partition(root, "mistake")
    driver = start("cluster", root, "mistake", *DRIVER, "--config.train.trainable=('^absent/',)")
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == MISTAKE
    assert "branch 0 failed" in output
    assert '["^absent/"]' in output
    log = (root / "mistake" / "logs" / "branch-0.log").read_text()
    assert log.count("error: ") == 1


def test_a_mistake_in_the_config_is_told_before_a_branch_starts(root):
    with_partition(root, "refused")
    driver = start("cluster", root, "refused", *DRIVER, "--config.train.micro_batches=3")
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == MISTAKE
    assert output.count("error: ") == 1
    assert "train.micro_batches = 3" in output
    assert not (root / "refused" / "logs").exists()


def test_a_supervisor_uses_no_accelerator_and_renders_without_watching(root):
    with_partition(root, "rendered")
    wait(start("cluster", root, "rendered", "--launcher=gcloud", "--option=zone=z", "--nowatch", *LONGER))
    text = (root / "rendered" / "jobs" / "gcloud.sh").read_text()
    assert "--config.train.epochs=4.0" in text
    assert f"--workdir={root / 'rendered'}" in text


def test_rounds_are_trained_one_after_the_other_whatever_happens_to_branches_and_supervisors(root):
    rounds = ("--config.rounds.count=2", "--config.rounds.warm=0.25")
    undisturbed = start("run", root, "rounds", f"--stages={STAGES}", *LONGER, *rounds)
    driver = start("cluster", root, "rounds-killed", *DRIVER, *rounds)
    wait(undisturbed)
    until(lambda: training(root, "rounds-killed/rounds/1", 0), driver)
    os.kill(record(root, "rounds-killed/rounds/1", 0)["pid"], signal.SIGKILL)
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=120)
    assert driver.returncode == 75
    wait(start("cluster", root, "rounds-killed", *DRIVER, *rounds))
    same_bits(merged(root, "rounds"), merged(root, "rounds-killed"))
    assert record(root, "rounds-killed/rounds/1", 0)["starts"] >= 2
    names = ["rounds/0/branches/0", *(f"rounds/{r}/branches/{k}" for r in (1, 2) for k in (0, 1))]
    for name in names:
        one, other = (read(root / workdir / name / "done.json") for workdir in ("rounds", "rounds-killed"))
        assert one["fingerprint"] == other["fingerprint"]
        assert one["inputs"] == other["inputs"]
    assert not (root / "rounds-killed" / "partition.json").exists()
    assert not leases(root, "rounds-killed")


def test_without_watching_the_branches_of_the_first_unfinished_round_are_rendered(root):
    words = ("--launcher=gcloud", "--option=zone=z", "--nowatch", *LONGER, "--config.rounds.count=2")
    wait(start("cluster", root, "later", *words))
    text = (root / "later" / "rounds" / "1" / "jobs" / "gcloud.sh").read_text()
    assert "--round=1" in text
    assert f"--workdir={root / 'later'} " in text
    assert not (root / "later" / "rounds" / "2").exists()
    refused = start("cluster", root, "later", "--allow_missing", *DRIVER, "--config.rounds.count=2")
    output, _ = refused.communicate(timeout=120)
    assert refused.returncode == MISTAKE
    assert "a round starts from the whole merge of the one before" in output


def test_the_finished_branches_are_merged_where_others_are_missing(root):
    with_partition(root, "partial")
    wait(start("branch", root, "partial", "--branch=1", *LONGER))
    wait(start("run", root, "partial", "--stages=merge,export", "--allow_missing", *LONGER))
    only = commands.branch(root, "one", 1)
    assert all(np.allclose(merged(root, "partial")[path], leaf, rtol=1e-6) for path, leaf in only.items())
    assert "**Incomplete**" in Path(root / "partial" / "merged" / "hf" / "README.md").read_text()
    assert json.loads((root / "partial" / "merged" / "merge.json").read_text())["weights"] == [0.0, 1.0]
