"""The state of a branch comes from its lease, its progress from the workdir's files."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from merit_jax.launch.console.branch_status import BranchStatus, branch_status, seconds_left
from merit_jax.workdir.artifacts import write_json
from merit_jax.workdir.lease import LeaseObserver, LeaseTiming
from merit_jax.workdir.paths import Workdir
from merit_jax.workdir.process import Process

TIMING = LeaseTiming(renew=0.05, patience=0.5, settle=0.1)
ELSEWHERE = Process("far", 7, "another machine", "1")
LINES = [
    {"step": 10, "loss": 2.5, "tokens": 1000, "tokens_per_second": 10.0},
    {"step": 20, "loss": 2.0, "tokens": 1000, "tokens_per_second": 50.0},
]
HOLDER = """
import sys, time
from etils import epath
from merit_jax.workdir.lease import Lease
assert Lease(epath.Path(sys.argv[1])).take() == ""
print("holds", flush=True)
time.sleep(60)
"""


@pytest.fixture
def workdir(tmp_path):
    """Branch 0 waits, 1 trains in its third start, 2 was stopped, 3 is finished."""
    workdir = Workdir.at(tmp_path)
    for k, starts in ((1, 3), (2, 1), (3, 1)):
        write_json(workdir.branch_host(k), {"host": f"machine[{k}]", "starts": starts, "steps": 60})
        workdir.branch_metrics(k).write_text("".join(json.dumps(line) + "\n" for line in LINES))
    renewed(workdir, 1, Process.this())
    write_json(workdir.branch_done(3), {})
    return workdir


def renewed(workdir, branch, process, count=0):
    """A lease in a process's name."""
    workdir.branch_lease(branch).parent.mkdir(exist_ok=True)
    text = json.dumps({"lease": "theirs", "renewed": count, **process._asdict()})
    workdir.branch_lease(branch).write_text(text)


def observer(workdir, branch, timing=TIMING):
    return LeaseObserver(workdir.branch_lease(branch), timing)


def status(workdir, branch) -> BranchStatus:
    return branch_status(workdir, branch, observer(workdir, branch))


def test_states_and_figures(workdir):
    found = [status(workdir, k) for k in range(4)]
    assert [each.state for each in found] == ["waiting", "training", "stopped", "finished"]
    assert [each.restarts for each in found] == [0, 2, 0, 0]
    assert found[0] == (0, "waiting", 0, None, None, None, "", 0, None)
    assert found[1] == (1, "training", 20, 60, 2.0, 50.0, "machine[1]", 2, pytest.approx(80.0))


def test_a_killed_process_leaves_a_lease_and_its_branch_is_stopped(workdir):
    lease = observer(workdir, 2)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(workdir.branch_lease(2))], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "holds\n"
        found = branch_status(workdir, 2, lease)
        assert (found.state, found.seconds) == ("training", pytest.approx(80.0))
        os.kill(holder.pid, signal.SIGKILL)
    finally:
        holder.kill()
        holder.communicate()
    assert workdir.branch_lease(2).exists()
    found = branch_status(workdir, 2, lease)
    assert (found.state, found.seconds, found.step) == ("stopped", None, 20)
    assert status(workdir, 2).state == "stopped"


def test_a_lease_alone_of_a_dead_process_is_a_stopped_branch(workdir):
    renewed(workdir, 0, Process.this()._replace(began="1"))
    assert status(workdir, 0).state == "stopped"


def test_a_branch_elsewhere_trains_while_its_lease_changes_and_is_stopped_after_patience(workdir):
    lease, began = observer(workdir, 2), time.monotonic()
    for count in range(8):
        renewed(workdir, 2, ELSEWHERE, count)
        assert branch_status(workdir, 2, lease).state == "training"
        time.sleep(TIMING.patience / 4)
    assert time.monotonic() - began > 1.5 * TIMING.patience
    time.sleep(1.5 * TIMING.patience)
    found = branch_status(workdir, 2, lease)
    assert (found.state, found.seconds) == ("stopped", None)


@pytest.mark.parametrize(
    ("lines", "steps", "seconds"),
    [
        (LINES, 60, 40 * 20 / 10),
        (LINES[:1], 60, 50 * 100 / 10),
        (LINES, 20, 0.0),
        ([], 60, None),
        (LINES, None, None),
        ([{**LINES[0], "tokens_per_second": 0.0}], 60, None),
    ],
)
def test_time_left_is_what_the_last_line_took_per_step_times_the_steps_to_come(lines, steps, seconds):
    assert seconds_left(lines, steps) == seconds


def test_a_torn_log_or_record_shows_what_can_be_read(workdir):
    whole = workdir.branch_metrics(1).read_text()
    for content in (whole + '{"step": 30, "lo', '{"step": 1, "lo\n' + whole):
        workdir.branch_metrics(1).write_text(content)
        assert status(workdir, 1).step == 20
    workdir.branch_host(1).write_text('{"host"')
    found = status(workdir, 1)
    assert (found.state, found.step, found.host) == ("training", 20, "")
