"""Tries a chat template in a child process with limits, where a single step that takes gigabytes harms nobody."""

import atexit
import contextlib
import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from pathlib import Path

CHILD = Path(__file__).with_name("template_child.py")
SECONDS = 5.0
"""Of the processor, for the probes of one template."""
WAIT = 60.0
"""Of the clock."""
GROWTH = 2**28
"""Bytes by which the child may grow."""


class TemplateTrial:
    """A child process that renders probe conversations; it is started by the first template, and again where one has ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def harm(self, source: str) -> str | None:
        """Returns what a template does to a process that renders it: "memory", "time", or None.

        Args:
            source: A template whose constants have been checked.
        """
        if not Path("/proc/self/statm").exists():  # there is no limit of memory to set
            return None
        line = json.dumps(source).encode() + b"\n"
        with self._lock:
            for _ in range(2):  # a child may have been ended by others, as by an interrupt
                try:
                    answer = self._ask(self._running(), line)
                except OSError:
                    return None  # no child can be started here: renderings are watched all the same
                if answer:
                    return {b"ok\n": None}.get(answer, "memory")
                if self.end() == -signal.SIGPROF or answer is None:
                    return "time"
            return "memory"

    @property
    def pid(self) -> int | None:
        """Number of the child's process; None without one."""
        return None if self._child is None else self._child.pid

    def _ask(self, child: subprocess.Popen[bytes], line: bytes) -> bytes | None:
        """Returns the child's answer: nothing where it ends, None where it gives none in time."""
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(line)
            child.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            return child.stdout.readline() if selector.select(WAIT) else None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.end()
            limits = json.dumps({"bytes": GROWTH, "seconds": SECONDS})
            self._child = subprocess.Popen(
                [sys.executable, "-I", str(CHILD), limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._child

    def end(self) -> int | None:
        """Ends the child; returns its exit status."""
        child, self._child = self._child, None
        if child is None:
            return None
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                pipe and pipe.close()
        return child.returncode


_trials = [TemplateTrial()]


@functools.lru_cache(maxsize=256)
def harm(source: str) -> str | None:
    """Returns what a template does to a process that renders it: see `TemplateTrial.harm`."""
    return _trials[-1].harm(source)


def _start_anew() -> None:
    """Leaves the child to the parent in a forked process."""
    _trials.append(TemplateTrial())


if hasattr(os, "register_at_fork"):  # nothing forks on Windows
    os.register_at_fork(after_in_child=_start_anew)
atexit.register(lambda: _trials[-1].end())
