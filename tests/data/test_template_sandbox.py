"""A template is checked before it is compiled; code that takes too long or too much is stopped, other code is left alone."""

import os
import resource
import signal
import threading
import time

import pytest

from merit_jax.data.chat_template import encode
from merit_jax.data.template_sandbox import OverrunError, bounded, check_template
from merit_jax.data.template_trial import TemplateTrial
from tests.support.tiny_tokenizer import CHATML, tiny_tokenizer
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
        ("{{ ['a', 'b'] | random }}", "has a random choice at line 1"),
        (
            "{% set n = messages | length * 2700 %}{{ ('a' * 900000) * n }}",
            "does not come to an end, or fills the memory; mend it",
        ),
        ("{% set s = 'a' | center(900000) %}{{ s | replace(' ', s) }}", "does not come to an end, or fills the memory"),
        (
            "{% for m in messages %}{% for i in range(m.content | length * 9999) %}{% for j in range(99999) %}"
            "{% endfor %}{% endfor %}{% endfor %}",
            "does not come to an end, or fills the memory",
        ),
        ("{% if", "is damaged at line 1"),
        ("{{ " + "(" * 5000, "cannot be parsed"),
    ],
)
def test_what_fills_the_memory_or_is_no_template_is_refused(template, reason):
    with pytest.raises(ValueError, match=f"the chat template {reason}"):
        check_template(template)


def test_a_template_is_tried_in_one_child_that_lives_on_and_is_replaced_when_it_dies():
    trial = TemplateTrial()
    try:
        assert trial.harm(CHATML) is None
        first = trial.pid
        assert [trial.harm("{{ 1 / 0 }}"), trial.harm("{% set n = 2700 %}{{ 'a' * 900000 * n }}"), trial.pid] == [
            None,
            "memory",
            first,
        ]
        os.kill(first, signal.SIGKILL)
        assert trial.harm(TEMPLATE) is None
        assert trial.pid not in (None, first)
    finally:
        trial.end()
    assert trial.pid is None


def test_two_gigabytes_in_one_step_are_not_allocated_here():
    source = "{% set n = messages | length * 2700 %}{{ ('a' * 900000) * n }}{# once #}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ValueError, match="f:1: the chat template does not come to an end, or fills the memory; mend it"
    ):
        encode(
            tiny_tokenizer(source),
            ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}),
            9,
            where="f:1",
        )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


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
