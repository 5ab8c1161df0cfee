"""Branches through Slurm's commands, which a stand-in runs here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from merit_jax.launch.launchers.interface import Job, JobContext, Launcher, LauncherError
from merit_jax.launch.launchers.slurm import Options, Slurm, script_of
from merit_jax.launch.launchers.supervisor import Supervisor
from merit_jax.workdir.paths import Workdir
from tests.support.commands import until

JOB = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1]) / "branches" / sys.argv[-1].removeprefix("--branch=")
folder.mkdir(parents=True, exist_ok=True)
attempts = folder / "attempts"
count = int(attempts.read_text()) + 1 if attempts.exists() else 1
attempts.write_text(str(count))
if folder.name == "1" and count == 1:
    sys.exit(75)
if folder.name == "2" and count == 1:
    sys.exit(139)
if folder.name == "3":
    print("error: no_such_key")
    sys.exit(65)
(folder / "done.json").write_text("{}")
"""
"""Branch 0 finishes, 1 is preempted and 2 crashes once, 3 is a mistake."""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The stand-in's commands, first in the path."""
    folder, state = tmp_path / "bin", tmp_path / "slurm"
    folder.mkdir()
    state.mkdir()
    fake = Path(__file__).parents[2] / "support" / "fake_slurm.py"
    for name in ("sbatch", "squeue", "scontrol", "srun"):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {fake} {name} "$@"\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(state))
    return state


def made(tmp_path, hosts=1):
    (tmp_path / "job.py").write_text(JOB)
    workdir = Workdir.at(tmp_path / "run")
    words = (str(tmp_path / "job.py"), str(tmp_path / "run"))
    jobs = [Job(k, (*words, f"--branch={k}"), Path(workdir.branch_log(k)), hosts) for k in range(4)]
    return jobs, JobContext("merit-test", tmp_path, tmp_path / "a folder"), workdir


def test_an_array_is_driven_to_its_end(tmp_path, slurm):
    jobs, site, workdir = made(tmp_path)
    launcher = Slurm(Options(), site)
    assert isinstance(launcher, Launcher)
    supervisor = Supervisor(launcher, jobs, workdir, retries=2)
    until(supervisor.poll)
    assert supervisor.failed == {3: "error: no_such_key"}
    attempts = [(tmp_path / "run" / "branches" / str(k) / "attempts").read_text() for k in range(4)]
    assert attempts == ["1", "2", "2", "1"]
    assert len(list(slurm.glob("*.submitted"))) == 2


def test_a_branch_that_has_left_the_queue_is_active_until_its_end_is_reported(tmp_path, slurm):
    jobs, site, _ = made(tmp_path)
    launcher = Slurm(Options(), site)
    launcher.start(jobs[3:])
    until(lambda: json.loads((slurm / "100_3.json").read_text())["running"] is False)
    assert launcher.active() == {3}
    assert [end.code for end in launcher.ended()] == [65]
    assert launcher.active() == set()


def test_a_new_supervisor_finds_what_is_in_the_queue(tmp_path, slurm):
    jobs, site, workdir = made(tmp_path)
    (slurm / "100_0.json").write_text(json.dumps({"running": True, "code": None, "name": site.name}))
    (slurm / "101_2.json").write_text(json.dumps({"running": True, "code": None, "name": "another run"}))
    launcher = Slurm(Options(), site)
    assert launcher.active() == {0}
    Supervisor(launcher, jobs[:1], workdir, retries=2).poll()
    assert not list(slurm.glob("*.submitted"))


def broken(tmp_path, name, message):
    """Puts a command in the place of the stand-in's, which fails."""
    (tmp_path / "bin" / name).write_text(f"#!/bin/sh\necho '{message}' >&2\nexit 1\n")


def test_a_queue_that_does_not_answer_is_asked_again(tmp_path, slurm):
    jobs, site, workdir = made(tmp_path)
    supervisor = Supervisor(Slurm(Options(), site), jobs[:1], workdir, retries=0)
    supervisor.poll()
    squeue = (tmp_path / "bin" / "squeue").read_text()
    broken(tmp_path, "squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    assert not supervisor.poll()
    (tmp_path / "bin" / "squeue").write_text(squeue)
    until(supervisor.poll)
    assert not supervisor.failed


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            LauncherError,
        ),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", LauncherError),
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", ValueError),
    ],
)
def test_a_job_that_slurm_refuses_is_a_mistake_and_an_absent_controller_is_none(tmp_path, slurm, message, error):
    jobs, site, _ = made(tmp_path)
    broken(tmp_path, "sbatch", message)
    with pytest.raises(error, match=r"sbatch .* failed: sbatch: error"):
        Slurm(Options(), site).start(jobs[:1])


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    _, site, _ = made(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="squeue is not on this machine"):
        Slurm(Options(), site).active()


def test_the_script_has_the_sites_words(tmp_path):
    jobs, site, _ = made(tmp_path, hosts=2)
    script = script_of(
        jobs[0], Options(sbatch="--partition=gpu --gpus-per-node=8", time="1:00:00", setup="module load x"), site
    )
    for line in ("#SBATCH --partition=gpu", "#SBATCH --gpus-per-node=8", "#SBATCH --nodes=2", "#SBATCH --time=1:00:00"):
        assert line in script.splitlines()
    assert "module load x" in script.splitlines()
    assert '--branch="$SLURM_ARRAY_TASK_ID" --distributed=auto\n' in script
    assert "--distributed" not in script_of(jobs[0]._replace(hosts=1), Options(), site)
    odd = jobs[0]._replace(log=Path('/a b/100%/"x"/branch-0.log'))
    lines = script_of(odd, Options(sbatch="--comment='two words'"), site).splitlines()
    assert r'#SBATCH "--output=/a b/100%%/\"x\"/branch-%a.log"' in lines
    assert '#SBATCH "--comment=two words"' in lines
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
