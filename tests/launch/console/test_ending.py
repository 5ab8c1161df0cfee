"""How commands end: a code for each kind of failure, and quietly where nobody listens or waits any more."""

import errno
import os
import signal
import time

import numpy as np
import pytest

from merit_jax.core.errors import FailedError
from merit_jax.launch.console.ending import verdict
from merit_jax.launch.console.exit_codes import CLOSED, FAULT, INTERRUPTED, MISTAKE
from tests.support.commands import environment
from tests.support.zygote import REPOSITORY, Command


def caught(work):
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError


def system(code):
    def fail():
        raise OSError(code, os.strerror(code), "a.json")

    return fail


def wrapped():
    """A reader that takes an error of the machine for damage."""
    source = (
        "try:\n    raise OSError(5, 'Input/output error')\nexcept OSError:\n    raise ValueError('damaged') from None"
    )
    exec(compile(source, "reader.py", "exec"), {"__name__": "merit_jax.reader"})


def of_project(kind):
    source = "def fail():\n    raise kind('mend this')"
    scope = {"__name__": "merit_jax.models.part", "kind": kind}
    exec(compile(source, "part.py", "exec"), scope)
    return scope["fail"]


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (of_project(ValueError), MISTAKE),
        (of_project(ImportError), MISTAKE),
        (lambda: os.stat("/nowhere/a"), MISTAKE),
        (of_project(FailedError), FAULT),
        (of_project(MemoryError), FAULT),
        *((system(code), FAULT) for code in (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EACCES, errno.ESTALE)),
        (wrapped, FAULT),
    ],
)
def test_what_a_sentence_can_say_has_a_code(work, code):
    found = verdict(caught(work))
    assert found is not None
    assert found[0] == code
    assert found[1]


@pytest.mark.parametrize(
    "work",
    [
        lambda: np.zeros(3).reshape(2),
        lambda: np.linalg.norm(np.zeros(3), "no"),
        lambda: int("x"),
        lambda: {}["a"],
        of_project(RuntimeError),
        of_project(AssertionError),
    ],
)
def test_a_crash_keeps_its_traceback(work):
    assert verdict(caught(work)) is None


START = "\nfrom merit_jax.launch.console import app\napp.start(main, lambda: None)"


def started(body, before=""):
    """A command with this body, as a process of its own."""
    code = f"import os, sys, time\n{before}\ndef main(argv):\n    {body}{START}"
    return Command(code, ["command", "--compilation_cache="], REPOSITORY, environment())


def ended(body, before=""):
    command = started(body, before)
    text, _ = command.communicate(60)
    return command.returncode, text


@pytest.mark.parametrize(
    ("body", "code", "lines"),
    [
        ("raise ValueError('mend this')", MISTAKE, 1),
        ("open('/nowhere/at/all')", MISTAKE, 1),
        ("raise OSError(5, 'Input/output error')", FAULT, 1),
        ("raise MemoryError", FAULT, 1),
        ("os.strerror(int('x'))", 1, None),
        ("raise RuntimeError('a bug')", 1, None),
        ("return 0", 0, 0),
    ],
)
def test_a_command_ends_with_its_code(body, code, lines):
    found, text = ended(body)
    assert found == code, text
    assert ("Traceback" in text) == (lines is None)
    assert lines is None or text.count("error: ") == lines


def test_a_wrong_flag_is_a_mistake():
    command = Command(f"def main(argv): pass{START}", ["command", "--nonsense=1"], REPOSITORY, environment())
    text, _ = command.communicate(60)
    assert command.returncode == MISTAKE, text


HEAD = "end, start = os.pipe(); os.dup2(start, 1); os.close(end)"
"""Standard output is a pipe whose reader has gone."""


@pytest.mark.parametrize(
    "body",
    [
        "print('x' * 10)",
        "[print('x' * 100) for _ in range(10000)]",
        "__import__('merit_jax.launch.console.terminal').launch.console.terminal.Terminal().print('x' * 100)",
        "sys.stdout.write('x'); return 7",
    ],
)
def test_a_reader_that_has_gone_ends_a_command_quietly(body):
    assert ended(body, HEAD) == (CLOSED, "")


def test_a_broken_pipe_that_is_not_standard_output_is_told(tmp_path):
    code, text = ended("end, start = os.pipe(); os.close(end); os.write(start, b'x')")
    assert code == FAULT
    assert "Broken pipe" in text


def test_closed_standard_streams_do_not_end_in_artifacts(tmp_path):
    path = tmp_path / "artifact"
    before = "os.close(0); os.close(1); sys.stdout = sys.stdin = None"
    body = f"file = open({str(path)!r}, 'w'); print('said'); os.write(1, b'said'); file.write('whole'); file.close()"
    assert ended(body, before) == (0, "")
    assert path.read_text() == "whole"


LOOP = "open({!r}, 'w').close(); [time.sleep(0.05) for _ in range(1200)]"
COMPILED = "open({!r}, 'w').close(); __import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 2 * 10**7)"
"""Compiled code, which sees no signal for many seconds."""


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_interrupt_ends_without_a_traceback(tmp_path):
    command = started(LOOP.format(str(tmp_path / "on")))
    wait_for(tmp_path / "on")
    command.send_signal(signal.SIGINT)
    text, _ = command.communicate(60)
    assert command.returncode == INTERRUPTED
    assert text.strip() == "interrupted; run the same command again to resume"


def test_a_second_interrupt_leaves_at_once_also_from_compiled_code(tmp_path):
    command = started(COMPILED.format(str(tmp_path / "on")))
    wait_for(tmp_path / "on")
    command.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert command.poll() is None
    began = time.monotonic()
    command.send_signal(signal.SIGINT)
    text, _ = command.communicate(60)
    assert command.returncode == INTERRUPTED
    assert "Traceback" not in text
    assert time.monotonic() - began < 5
