"""Decides how a command ends: which errors are its user's mistakes, which are the machine's, and what is left to say."""

import contextlib
import dis
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from merit_jax.core.errors import CONTENT, FailedError, machine_error, system_number
from merit_jax.launch.console.exit_codes import FAULT, INTERRUPTED, MISTAKE

PACKAGES = ("merit_jax", "models", "launch", "configs", "benchmarks")
TOGETHER = 0.2
"""Seconds within which two interrupts are one, sent twice: by a terminal and by a program between it and this one."""


def verdict(error: Exception) -> tuple[int, str] | None:
    """Returns the exit code and the sentence of an error; None for a crash, which its traceback explains.

    A mistake of the user is an error that this project raises on purpose, or a path that is not there. A failure of the machine
    is one whatever has wrapped it. A ValueError of NumPy or JAX is a crash.
    """
    if isinstance(error, FailedError):
        return FAULT, str(error)
    if isinstance(error, OSError):
        return (MISTAKE if system_number(error) in CONTENT else FAULT), str(error)
    machine = machine_error(error, "this command")
    if isinstance(error, MemoryError) or (machine is not None and "RESOURCE_EXHAUSTED" in str(error)):
        return FAULT, f"out of memory: {str(error) or 'the machine has no more'}"
    if isinstance(error, ValueError | ImportError) and _is_deliberate(error):
        return (MISTAKE if machine is None else FAULT), str(error)
    return None


def _is_deliberate(error: BaseException) -> bool:
    """Returns whether a statement `raise` of this project has raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code, module = trace.tb_frame.f_code, trace.tb_frame.f_globals.get("__name__", "")
    raised = dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    return raised and module.partition(".")[0] in (*PACKAGES, "__main__")


def open_standard_streams() -> None:
    """Opens the null device in place of standard streams that are closed, so that no artifact gets their descriptors."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def reader_has_gone() -> bool:
    """Returns whether standard output, or standard error, is a pipe that nobody reads any more."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def be_quiet() -> None:
    """Sends standard output and standard error to the null device, with what is buffered."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


@contextlib.contextmanager
def second_interrupt_leaves() -> Iterator[None]:
    """Ends the process at once on the second SIGINT, also where Python waits for compiled code and handles no signal.

    The number of every signal comes through a pipe, which a thread reads. The lease of a process that has left is free at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end, start = os.pipe()
    os.set_blocking(start, False)
    before = signal.set_wakeup_fd(start, warn_on_full_buffer=False)
    threading.Thread(target=_count, args=(end,), name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(start)


def _count(end: int) -> None:
    first = 0.0
    with open(end, "rb", buffering=0) as numbers:
        while number := numbers.read(1):
            if number[0] != signal.SIGINT:
                continue
            if first and time.monotonic() - first > TOGETHER:
                os._exit(INTERRUPTED)
            first = first or time.monotonic()


def flush(stream: Any) -> None:
    """Writes what is buffered while a failure can still be told; Python would do so when it is too late."""
    if stream is not None and not stream.closed:
        stream.flush()
