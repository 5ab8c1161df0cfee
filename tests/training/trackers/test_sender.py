"""Whatever a tracker does, training goes on, and what could not be sent is sent later."""

import importlib.util
import logging
import sys
import threading
import types

import pytest
from etils import epath

from merit_jax.training.trackers import TRACKERS, TrackedRun, TrackerKind, check_trackers
from merit_jax.training.trackers.sender import Senders

RUN = TrackedRun("study", "study/merit", "branch-0", "0123456789abcdef", epath.Path("/nowhere"), {"seed": 3})


class Recorded:
    """A tracker that keeps what it gets; `faults` of its first calls fail."""

    def __init__(self, latest=-1, faults=0):
        self.latest, self.faults, self.found, self.closed = latest, faults, [], None

    def log(self, step, values):
        if self.faults:
            self.faults -= 1
            raise OSError("the network is down")
        self.found.append((step, dict(values)))

    def close(self, *, finished):
        self.closed = finished


def senders(tracker, **options):
    return Senders({"recorded": TrackerKind("x", "x", lambda run: tracker)}, RUN, **options)


def line(step):
    return {"step": step, "loss": 1.0 / step}


def test_a_resumed_branch_sends_what_the_tracker_lacks_and_nothing_twice():
    tracker = Recorded(latest=5)
    sending = senders(tracker)
    sending.begin([line(2), line(4), line(6)])
    sending.add(line(8))
    sending.close(finished=True)
    assert tracker.found == [(6, {"loss": 1 / 6}), (8, {"loss": 1 / 8})]
    assert tracker.closed is True


def test_a_failing_tracker_warns_once_and_gets_its_lines_later(caplog):
    tracker = Recorded(faults=2)
    sending = senders(tracker)
    with caplog.at_level(logging.WARNING, "merit_jax"):
        for step in (1, 2, 3):
            sending.add(line(step))
        sending.close(finished=False)
    assert [step for step, _ in tracker.found] == [1, 2, 3]
    assert tracker.closed is False
    (warning,) = caplog.messages
    assert warning.startswith("tracker recorded fails (OSError: the network is down); training goes on")


def test_a_tracker_that_cannot_be_opened_warns_and_stops_nothing(caplog):
    def refuse(run):
        raise RuntimeError("no login")

    with caplog.at_level(logging.WARNING, "merit_jax"):
        sending = Senders({"locked": TrackerKind("x", "x", refuse)}, RUN)
        sending.begin([line(1)])
        sending.close(finished=True)
    assert [message.split(";")[0] for message in caplog.messages] == ["tracker locked fails (RuntimeError: no login)"]


def test_a_tracker_that_hangs_does_not_hold_up_the_end(caplog):
    free = threading.Event()
    tracker = Recorded()
    tracker.log = lambda step, values: free.wait()
    sending = senders(tracker, patience=0.05)
    with caplog.at_level(logging.WARNING, "merit_jax"):
        sending.add(line(1))
        sending.close(finished=True)
    free.set()
    assert "tracker recorded did not end in time" in caplog.text


def test_a_tracker_that_is_not_installed_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, package in {"tensorboard": "tensorboardX", "wandb": "wandb"}.items():
        with pytest.raises(ValueError, match=rf"train.trackers names '{name}'.*pip install {package}, or .*trackers"):
            check_trackers([name])
    check_trackers([])


def test_wandb_resumes_a_run_where_its_server_has_ended(monkeypatch):
    """Online: wandb says the step that comes next; those before are there."""
    calls = []

    class Run:
        resumed, step = True, 7

        def log(self, values, *, step, commit):
            calls.append((step, values))

        def finish(self, *, exit_code):
            calls.append(exit_code)

    def init(*, project, group, name, id, resume, dir, config):
        calls.append((project, group, name, id, resume, config))
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    sending = Senders({"wandb": TRACKERS["wandb"]}, RUN)
    sending.begin([line(2), line(4), line(6)])
    sending.add(line(8))
    sending.close(finished=True)
    assert calls == [(*RUN[:4], "allow", {"seed": 3}), (8, {"loss": 1 / 8}), 0]
