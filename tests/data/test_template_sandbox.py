"""A template is checked before it is compiled; code that takes too long or too much is stopped, other code is left alone."""

import threading
import time

import pytest

from merit_jax.data.template_sandbox import OverrunError, bounded, check_template
from tests.support.tiny_tokenizer import CHATML
from tests.support.tiny_vision import TEMPLATE


@pytest.mark.parametrize(
    "template", [CHATML, TEMPLATE, "{{ ' ' * 8 * loop.index }}", "{# #}", "{{ '%05d' | format(1) }}"]
)
def test_what_conversations_need_is_taken(template):
    check_template(template)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 10**12 }}", "has a power at line 1"),
        ("\n{{ 'a' * 10000000 }}", "has a product of more than 1000000 at line 2"),
        ("{{ ('a' * 10000) * 10000 }}", "has a product of more than 1000000"),
        ("{{ messages[0] | center(10000000) }}", "has a number above 1000000"),
        ("{{ '%1000000000d' | format(1) }}", "has a number above 1000000"),
        ("{{ '{:>1000000000}'.format(1) }}", "has a number above 1000000"),
        ("{% if", "is damaged at line 1"),
        ("{{ " + "(" * 5000, "cannot be parsed"),
    ],
)
def test_what_fills_the_memory_or_is_no_template_is_refused(template, reason):
    with pytest.raises(ValueError, match=f"the chat template {reason}"):
        check_template(template)


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
