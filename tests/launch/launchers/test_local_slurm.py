"""Branches as an array job of a real Slurm on this machine (skipped where it is not installed)."""

import subprocess

import pytest

from tests.support import commands, local_slurm, world
from tests.support.commands import read, same_bits, start, steps_saved, until, wait, with_partition

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(local_slurm.missing()), reason="Slurm's programs are not installed"),
]

LONGER = ("--config.train.epochs=8.0", "--config.train.batch_size=2", "--config.train.checkpoint_every=2")
LAUNCHER = ("--launcher=slurm", "--option=time=0:30:00", "--interval=0.5", "--after=merge")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    (tmp_path / "slurm").mkdir()
    with local_slurm.running(tmp_path / "slurm") as env:
        monkeypatch.setenv("SLURM_CONF", env["SLURM_CONF"])
        monkeypatch.setenv("PATH", env["PATH"])
        yield env


def test_branches_that_are_preempted_or_killed_are_queued_again_and_the_merge_has_the_same_bits(tmp_path, slurm):
    root = commands.world_at(tmp_path)
    wait(start("run", root, "one", "--stages=mixture,gradients,conflict,partition,train,merge", *LONGER))
    with_partition(root, "queued")
    driver = start("cluster", root, "queued", *LAUNCHER, *LONGER)
    branches = [root / "queued" / "branches" / str(k) for k in range(2)]
    until(lambda: all(steps_saved(branch) for branch in branches), driver)
    script = root / "queued" / "jobs" / "branches.sbatch"
    tried = subprocess.run(["sbatch", "--test-only", "--array=0-1", script], env=slurm, check=False)
    assert tried.returncode == 0
    number = local_slurm.ask(slurm, "squeue", "--noheader", "--format=%F").split()[0]
    local_slurm.ask(slurm, "scancel", "--signal=TERM", f"{number}_0")
    local_slurm.ask(slurm, "scontrol", "requeue", f"{number}_1")
    wait(driver)
    same_bits(*(world.host(commands.OrbaxLeaves(root / name / "merged" / "params")) for name in ("one", "queued")))
    assert [read(branch / "host.json")["starts"] for branch in branches] == [2, 2]
    log = (root / "queued" / "logs" / "branch-0.log").read_text()
    assert "preempted, and saved at step" in log
    assert local_slurm.ask(slurm, "squeue", "--noheader") == ""
