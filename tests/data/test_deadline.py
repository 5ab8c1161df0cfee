"""Code that takes too long or too much is stopped; other code is left alone."""

import threading
import time

import pytest

from merit_jax.data.deadline import OverrunError, bounded


def wait():
    while True:
        time.sleep(0.001)


def fill():
    kept = []
    while True:
        kept.append(bytearray(2**20))


def test_an_endless_loop_is_stopped():
    began = time.monotonic()
    with pytest.raises(OverrunError), bounded(seconds=0.2):
        wait()
    assert time.monotonic() - began < 5


def test_what_fills_the_memory_is_stopped():
    with pytest.raises(OverrunError), bounded(seconds=20.0, growth=2**26):
        fill()


def test_an_endless_loop_is_stopped_in_another_thread_alone():
    ended = []

    def endless():
        try:
            with bounded(seconds=0.2):
                wait()
        except OverrunError:
            ended.append(True)

    thread = threading.Thread(target=endless)
    thread.start()
    with bounded(seconds=30.0):
        thread.join(timeout=20)
    assert ended == [True]


def test_what_ends_in_time_goes_on_undisturbed():
    for _ in range(200):
        with bounded(seconds=0.03):
            pass
    time.sleep(0.1)
