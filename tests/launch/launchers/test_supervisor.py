"""What the supervisor starts, starts again, and leaves alone."""

import json
from pathlib import Path

import pytest

from merit_jax.core.errors import FailedError
from merit_jax.launch.console.exit_codes import FAULT, MISTAKE
from merit_jax.launch.launchers.interface import Exit, Job, Launcher, LauncherError
from merit_jax.launch.launchers.supervisor import Supervisor
from merit_jax.workdir.paths import Workdir
from merit_jax.workdir.process import Process


class Scripted:
    """A launcher whose jobs end at once, each with the next of its codes; 0 writes done.json."""

    detached = False

    def __init__(self, workdir, codes, slots=None):
        self.slots, self.started = slots, []
        self._workdir, self._codes, self._running = workdir, {k: list(v) for k, v in codes.items()}, []

    def start(self, jobs):
        self.started += [job.branch for job in jobs]
        self._running += [job.branch for job in jobs]

    def active(self):
        return set(self._running)

    def ended(self):
        over, self._running = self._running, []
        ends = [Exit(branch, self._codes[branch].pop(0), f"the end of {branch}") for branch in over]
        for end in ends:
            if end.code == 0:
                finish(self._workdir, end.branch)
        return ends

    def stop(self):
        pass


def finish(workdir, branch):
    workdir.branch(branch).mkdir(parents=True, exist_ok=True)
    workdir.branch_done(branch).write_text("{}")


@pytest.fixture
def workdir(tmp_path):
    return Workdir.at(tmp_path)


def jobs(count):
    return [Job(k, ("-c", ""), Path(f"{k}.log")) for k in range(count)]


def driven(workdir, codes, retries=3, slots=None, polls=20):
    launcher = Scripted(workdir, codes, slots)
    supervisor = Supervisor(launcher, jobs(len(codes)), workdir, retries)
    assert any(supervisor.poll() for _ in range(polls))
    return supervisor, launcher


def test_the_stand_in_is_a_launcher(workdir):
    assert isinstance(Scripted(workdir, {}), Launcher)


def test_every_branch_is_started_once_where_none_fails(workdir):
    supervisor, launcher = driven(workdir, {0: [0], 1: [0], 2: [0]})
    assert (launcher.started, supervisor.failed) == ([0, 1, 2], {})


@pytest.mark.parametrize("crash", [None, -9, -11, 1, 2, FAULT, 137, 139])
def test_a_crash_is_retried_up_to_the_limit(workdir, crash):
    supervisor, launcher = driven(workdir, {0: [crash] * 3 + [0], 1: [crash] * 4})
    assert launcher.started.count(0) == 4
    assert launcher.started.count(1) == 4
    assert list(supervisor.failed) == [1]
    assert "the end of 1" in supervisor.failed[1]


def test_a_mistake_is_not_retried_and_does_not_stop_the_others(workdir):
    supervisor, launcher = driven(workdir, {0: [MISTAKE], 1: [-9, 0]})
    assert supervisor.failed == {0: "the end of 0"}
    assert supervisor.mistaken
    assert launcher.started.count(0) == 1
    assert workdir.branch_done(1).exists()


@pytest.mark.parametrize("code", [75, -15, 143, -2, 130])
def test_a_preemption_is_no_crash(workdir, code):
    supervisor, launcher = driven(workdir, {0: [code] * 9 + [0]}, retries=0)
    assert launcher.started == [0] * 10
    assert not supervisor.failed


def test_an_end_without_the_done_marker_is_a_crash(workdir):
    launcher = Scripted(workdir, {0: [0]})
    launcher.ended = lambda: [Exit(0, 0, "")] if launcher.started else []
    supervisor = Supervisor(launcher, jobs(1), workdir, 0)
    assert any(supervisor.poll() for _ in range(5))
    assert list(supervisor.failed) == [0]


def test_no_more_are_started_than_there_are_slots(workdir):
    launcher = Scripted(workdir, {k: [0] for k in range(5)}, slots=2)
    supervisor = Supervisor(launcher, jobs(5), workdir, 0)
    supervisor.poll()
    assert launcher.started == [0, 1]
    supervisor.poll()
    assert launcher.started == [0, 1, 2, 3]


def test_a_new_supervisor_starts_only_what_is_left(workdir):
    finish(workdir, 0)
    finish(workdir, 2)
    _, launcher = driven(workdir, {0: [], 1: [0], 2: []})
    assert launcher.started == [1]


def test_a_branch_that_another_process_trains_is_left_alone(workdir):
    workdir.branch_lease(0).parent.mkdir()
    workdir.branch_lease(0).write_text(json.dumps({"lease": "theirs", **Process.this()._asdict()}))
    launcher = Scripted(workdir, {0: [0], 1: [0]})
    supervisor = Supervisor(launcher, jobs(2), workdir, 0)
    assert not any(supervisor.poll() for _ in range(5))
    assert launcher.started == [1]
    workdir.branch_lease(0).unlink()
    assert any(supervisor.poll() for _ in range(5))
    assert launcher.started == [1, 0]


def test_crashes_count_whoever_supervises(workdir):
    launcher = Scripted(workdir, {0: [1, 1, 0]})
    for _ in range(2):
        supervisor = Supervisor(launcher, jobs(1), workdir, 1)
        supervisor.poll()
        supervisor.poll()
    assert "it has crashed 2 times, and last ended with code 1" in supervisor.failed[0]
    assert not supervisor.mistaken
    third = Supervisor(launcher, jobs(1), workdir, 1)
    assert third.poll()
    assert launcher.started == [0, 0]
    assert "delete" in third.failed[0]
    workdir.branch_crashes(0).unlink()
    supervisor = Supervisor(launcher, jobs(1), workdir, 1)
    assert any(supervisor.poll() for _ in range(3))
    assert not supervisor.failed


@pytest.mark.parametrize("error", [LauncherError("squeue failed"), OSError(116, "Stale file handle")])
@pytest.mark.parametrize("method", ["ended", "active", "start"])
def test_a_tool_that_fails_once_is_asked_again(workdir, monkeypatch, method, error):
    launcher, failures = Scripted(workdir, {0: [0], 1: [0]}), [error]
    original = getattr(launcher, method)

    def failing(*arguments):
        if failures:
            raise failures.pop()
        return original(*arguments)

    monkeypatch.setattr(launcher, method, failing)
    supervisor = Supervisor(launcher, jobs(2), workdir, 0)
    assert any(supervisor.poll() for _ in range(4))
    assert sorted(launcher.started) == [0, 1]
    assert not supervisor.failed


def test_a_tool_that_goes_on_failing_ends_the_supervisor(workdir, monkeypatch):
    def fail():
        raise LauncherError("squeue failed: Unable to contact slurm controller")

    launcher = Scripted(workdir, {0: [0]})
    monkeypatch.setattr(launcher, "ended", fail)
    with pytest.raises(FailedError, match="Unable to contact slurm controller; run the same command again"):
        Supervisor(launcher, jobs(1), workdir, 0, patience=0.0).poll()
