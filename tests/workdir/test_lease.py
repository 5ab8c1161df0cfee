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
from merit_jax.workdir.lease import Lease, LeaseObserver, LeaseTiming, Process, held

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
    code = "from merit_jax.workdir.lease import Process; import json; print(json.dumps(Process.this()))"
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
