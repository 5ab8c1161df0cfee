"""SIGTERM becomes a question that training asks before every step."""

import os
import signal
import threading

import pytest

from merit_jax.core.errors import UnfinishedError
from merit_jax.training.preemption import preemption_notice


def test_no_notice_leaves_the_handler_as_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with preemption_notice() as told:
        assert not told(0)
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_notice_is_told_and_nothing_is_begun_after_it():
    before = signal.getsignal(signal.SIGTERM)
    answers = []

    def work():
        with preemption_notice() as told:
            os.kill(os.getpid(), signal.SIGTERM)
            answers.append(told(5))

    with pytest.raises(UnfinishedError, match="preempted"):
        work()
    assert answers == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_saves_as_a_notice_does_and_a_second_one_interrupts():
    before, answers = signal.getsignal(signal.SIGINT), []

    def work(times):
        with preemption_notice() as told:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
                answers.append(told(5))

    with pytest.raises(UnfinishedError, match=r"preempted \(SIGINT\)"):
        work(1)
    with pytest.raises(KeyboardInterrupt):
        work(2)
    assert answers == [True, True]
    assert signal.getsignal(signal.SIGINT) is before


def test_what_the_block_raises_comes_through():
    def work():
        with preemption_notice():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_a_thread_gets_no_notice():
    answers = []

    def work():
        with preemption_notice() as told:
            answers.append(told(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
