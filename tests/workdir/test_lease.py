"""A lease has one holder; it is lost with its process or its silence, and no clock that can be set plays a part."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from merit_jax.core.errors import UnfinishedError
from merit_jax.workdir import lease as module
from merit_jax.workdir import process as processes
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.lease import Lease, LeaseObserver, LeaseTiming, create_remote, held
from merit_jax.workdir.process import Process

PACE = LeaseTiming(renew=0.05, patience=0.5, settle=0.1)
PATIENT = LeaseTiming(renew=0.05, patience=60.0, settle=0.1)
ELSEWHERE = Process("far", 7, "another machine", "1")


@pytest.fixture
def path(tmp_path):
    return epath.Path(tmp_path / "0.lease")


def write(path, process, count=0):
    path.write_text(json.dumps({"lease": "theirs", "renewed": count, **process._asdict()}))


def dead():
    """A process of this machine that has ended."""
    code = "from merit_jax.workdir.process import Process; import json; print(json.dumps(Process.this()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Process(*json.loads(done.stdout))


def test_it_has_one_holder_until_it_is_given_back(path):
    first = Lease(path, PACE)
    assert first.take() == ""
    assert str(Process.this()) in Lease(path, PACE).take()
    time.sleep(2 * PACE.patience)
    assert str(Process.this()) in Lease(path, PACE).take()
    first.check()
    first.release()
    assert not path.exists()
    second = Lease(path, PACE)
    assert second.take() == ""
    second.release()


def test_that_of_a_process_that_died_here_is_free_at_once(path):
    write(path, dead())
    lease = Lease(path, PATIENT)
    assert lease.take() == ""
    lease.release()


def test_a_process_with_the_number_of_a_dead_one_does_not_hold_its_lease(path):
    write(path, Process.this()._replace(began="1"))
    assert LeaseObserver(path, PATIENT).free()
    write(path, Process.this())
    assert not LeaseObserver(path, PATIENT).free()


def test_a_process_elsewhere_is_lost_only_after_long_silence(path):
    write(path, ELSEWHERE)
    watch, began = LeaseObserver(path, PACE), time.monotonic()
    assert not watch.free()
    assert watch.holder == "far, process 7"
    lease = Lease(path, PACE)
    assert lease.take() == ""
    assert time.monotonic() - began >= PACE.patience
    lease.release()


@pytest.mark.parametrize("date", [0, 2**33])
def test_one_that_changes_is_held_whatever_the_dates_of_its_file(path, date):
    stop = threading.Event()

    def renew():
        count = 0
        while not stop.wait(PACE.renew):
            count += 1
            temporary = path.parent / "temporary"
            write(temporary, ELSEWHERE, count)
            os.utime(temporary, (date, date))
            temporary.replace(path)

    write(path, ELSEWHERE)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        assert Lease(path, PACE).take() == "far, process 7"
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("content", ["", "{", '{"lease": "theirs"}', "\x00\x01"])
def test_a_damaged_one_is_free_after_the_same_silence(path, content):
    path.write_text(content)
    watch = LeaseObserver(path, PACE)
    assert not watch.free()
    lease = Lease(path, PACE)
    assert lease.take() == ""
    lease.release()


def test_of_many_that_find_a_lost_one_one_gets_it(path):
    write(path, dead())
    leases = [Lease(path, PACE) for _ in range(8)]
    answers: dict[int, str] = {}
    threads = [threading.Thread(target=lambda k=k: answers.update({k: leases[k].take()})) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [k for k, holder in answers.items() if holder == ""]
    leases[winner].check()
    leases[winner].release()
    assert not path.exists()


def test_a_holder_notices_that_another_has_taken_it(path):
    lease = Lease(path, PACE)
    assert lease.take() == ""
    write(path, ELSEWHERE)
    time.sleep(6 * PACE.renew)
    with pytest.raises(UnfinishedError, match="was taken by another process"):
        lease.check()
    lease.release()
    assert path.exists()


def test_a_piece_of_work_in_other_hands_is_not_begun(path):
    with held(path, "branch 3"):
        assert path.exists()
        with pytest.raises(UnfinishedError, match=r"branch 3 is held by .*0\.lease"), held(path, "branch 3"):
            raise AssertionError
    assert not path.exists()


def test_it_is_given_back_when_the_work_fails(path):
    with pytest.raises(ZeroDivisionError), held(path, "branch 3"):
        raise ZeroDivisionError
    assert not path.exists()


def test_the_renewing_thread_survives_any_error(path, monkeypatch):
    failures = [MemoryError(), RuntimeError("can't start new thread"), OSError(5, "Input/output error")]
    write_text = module.write_text

    def failing(*arguments):
        if failures:
            raise failures.pop()
        write_text(*arguments)

    lease = Lease(path, PACE)
    assert lease.take() == ""
    monkeypatch.setattr(module, "write_text", failing)
    time.sleep(12 * PACE.renew)
    assert not failures
    assert json.loads(path.read_text())["renewed"] > 0
    lease.check()
    lease.release()


def test_a_holder_that_cannot_renew_stops(path, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    lease = Lease(path, PACE)
    assert lease.take() == ""
    monkeypatch.setattr(module, "write_text", fail)
    lease.check()
    time.sleep(1.5 * PACE.patience)
    with pytest.raises(OSError, match="Input/output error"):
        lease.check()
    lease.release()


def test_a_holder_that_slept_renews_what_nobody_has_taken(path, monkeypatch):
    lease = Lease(path, LeaseTiming(renew=60.0, patience=0.1, settle=0.05))
    assert lease.take() == ""
    time.sleep(0.2)
    lease.check()
    assert json.loads(path.read_text())["renewed"] == 1
    lease.release()


def test_a_holder_that_was_suspended_overwrites_nothing_of_its_successor(path):
    record, other = path.parent / "0" / "done.json", path.parent / "00.json"
    with held(path, "branch 0"):
        write_json(record, {"steps": 1})
        write(path, ELSEWHERE)
        write_json(other, {})
        record.write_text('{"steps": 7}')
        with pytest.raises(UnfinishedError, match="was taken by another process"):
            write_json(record, {"steps": 2})
    assert read_json(record) == {"steps": 7}
    assert [file.name for file in record.parent.iterdir()] == ["done.json"]
    assert path.exists()
    write_json(record, {"steps": 3})


@pytest.mark.parametrize(("answer", "lives"), [(PermissionError, None), (None, None), (ProcessLookupError, False)])
def test_a_process_that_proc_does_not_show_is_not_dead(monkeypatch, answer, lives):
    def kill(pid, number):
        if answer is not None:
            raise answer

    mine = Process.this()
    monkeypatch.setattr(processes, "_began", lambda pid: None)
    monkeypatch.setattr(os, "kill", kill)
    assert mine.lives() is lives


def test_a_process_that_is_only_waited_for_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes._began(child.pid) == ""
    child.wait()
    assert processes._began(child.pid) is None


def test_of_many_that_make_an_object_of_a_bucket_one_does():
    url = "memory://bucket/branches/0.lease"
    assert [create_remote(url, str(k).encode()) for k in range(3)] == [True, False, False]
    assert module.fsspec.core.url_to_fs(url)[0].cat_file("/bucket/branches/0.lease") == b"0"


def test_a_store_without_conditional_writes_is_told(monkeypatch):
    class Store:
        def pipe_file(self, name, data):
            raise AssertionError

    monkeypatch.setattr(module.fsspec.core, "url_to_fs", lambda url: (Store(), url))
    assert create_remote("gs://bucket/0.lease", b"") is None
