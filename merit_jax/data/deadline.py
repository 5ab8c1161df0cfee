"""A bound on the time and the memory of a piece of Python that may never end, such as a chat template from elsewhere."""

import contextlib
import ctypes
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator

SECONDS = 5.0
GROWTH = 2**28
"""Bytes by which the process may become larger than it has ever been."""
POLL = 0.02
"""Seconds between two looks."""


class OverrunError(Exception):
    """The code took more time or memory than it may."""


class _Guard:
    """One piece of code in one thread."""

    def __init__(self, seconds: float, growth: int):
        self.thread, self.fired = threading.get_ident(), False
        self.until, self.most = time.monotonic() + seconds, _peak() + growth

    def overrun(self) -> bool:
        """Whether it is to be stopped."""
        return time.monotonic() > self.until or _peak() > self.most

    def stop(self) -> None:
        """Lets the thread raise `OverrunError` at its next step; one operation of C is not broken off."""
        self.fired = True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(OverrunError))

    def forget(self) -> None:
        """Takes back what the thread has not raised yet."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), None)


class _Watch:
    """The guards of a process, and the thread that looks at them while there are any."""

    def __init__(self) -> None:
        self.changed, self.guards = threading.Condition(), set[_Guard]()
        self.thread: threading.Thread | None = None

    def add(self, guard: _Guard) -> None:
        """Begins to look at a guard."""
        with self.changed:
            self.guards.add(guard)
            if self.thread is None:
                self.thread = threading.Thread(target=self._look, name="deadlines", daemon=True)
                self.thread.start()
            self.changed.notify()

    def remove(self, guard: _Guard) -> None:
        """Ends it."""
        with self.changed:
            self.guards.discard(guard)
            if guard.fired:
                guard.forget()

    def _look(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.guards))
                for guard in [guard for guard in self.guards if guard.overrun()]:
                    self.guards.discard(guard)
                    guard.stop()
            time.sleep(POLL)


_watch = _Watch()


def _start_anew() -> None:
    """In a forked process the thread is gone, and the lock may be held for ever."""
    global _watch
    _watch = _Watch()


os.register_at_fork(after_in_child=_start_anew)


@contextlib.contextmanager
def bounded(seconds: float = SECONDS, growth: int = GROWTH) -> Iterator[None]:
    """Stops the code inside when it takes too long or too much.

    Args:
        seconds: Wall time.
        growth: Bytes by which the process may become larger than it has ever been.

    Raises:
        OverrunError: It did.
    """
    guard = _Guard(seconds, growth)
    _watch.add(guard)
    try:
        yield
    finally:
        _watch.remove(guard)


def _peak() -> int:
    """Bytes of memory that the process had at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
