"""A lock on a part of a workdir: its holder renews it, and one that is not renewed in time is stale and may be acquired.

A renewal changes the content, so it is seen without comparing clocks of machines, and a clock that is set makes no difference.
"""

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import fsspec
import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from merit_jax.core.errors import UnfinishedError
from merit_jax.workdir.artifacts import write_text
from merit_jax.workdir.fences import fence
from merit_jax.workdir.paths import is_remote
from merit_jax.workdir.process import Process

log = logging.getLogger("merit_jax")


class LeaseTiming(NamedTuple):
    """Intervals in seconds of a clock that nobody sets, and that counts the time in which a machine sleeps.

    Attributes:
        renew: Between two renewals.
        patience: Without a renewal, after which a lease is stale.
        settle: Between writing over a stale lease and relying on it.
    """

    renew: float = 10.0
    patience: float = 60.0
    settle: float = 1.0


SETTLE = float(os.environ.get("MERIT_LEASE_SETTLE", "1"))
"""Seconds after which every machine sees what one has written: more for network folders that cache names (actimeo of NFS)."""

LEASE_TIMING = LeaseTiming(patience=60.0 + SETTLE, settle=SETTLE)
"""The timing of every lease of a workdir; all processes must agree on it."""


def now() -> float:
    """Returns seconds since the machine was booted, sleep included where the system counts it."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class LeaseObserver:
    """An observer of a lease that never waits.

    Attributes:
        holder: "HOST, process PID", as the lease had it when last read; "" if there was none.
    """

    def __init__(self, path: epath.Path, timing: LeaseTiming = LEASE_TIMING) -> None:
        self.holder = ""
        self._path, self._timing = path, timing
        self._first: str | None = None
        self._seen: str | None = None
        self._since = now()
        self._lives: bool | None = None

    def free(self) -> bool:
        """Returns whether the lease is free: absent, of a dead process of this machine, or stale."""
        text, time_now = _read(self._path), now()
        if text is None:
            self.holder, self._seen, self._lives = "", None, None
            return True
        if text != self._seen:
            self._seen, self._since = text, time_now
            self._first = self._first or text
        owner = _owner(text)
        self.holder = "an unnamed process" if owner is None else str(owner)
        self._lives = None if owner is None else owner.lives()
        return time_now - self._since > self._timing.patience if self._lives is None else not self._lives

    def held(self) -> bool:
        """Returns whether the lease is certainly held: by a live process of this machine, or seen to change."""
        return bool(self._lives) or self._seen not in (None, self._first)


class Lease:
    """This process's lock on a part of a workdir.

    Args:
        path: The lease's file.
        timing: How often it is renewed.
    """

    def __init__(self, path: epath.Path, timing: LeaseTiming = LEASE_TIMING) -> None:
        self.path = path
        self._timing, self._name, self._count = timing, uuid.uuid4().hex, 0
        self._lost = False
        self._renewed: float | None = None
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._renew, name=f"lease {path}", daemon=True)

    def take(self) -> str:
        """Takes the lease, or returns its holder; for a holder on another machine, waits to see whether it renews.

        A new file is made by one process only. Over a stale lease, and in a store that cannot say who came first, several may
        write: each then waits for the others to have written, and the last has it (Fischer's mutual exclusion).

        Returns:
            "" once this process has it, or else its holder.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            watch = LeaseObserver(self.path, self._timing)
            while not watch.free():
                if watch.held():
                    return watch.holder
                time.sleep(self._timing.renew / 10)
            if watch.holder and self._replace():
                break
        self._renewed = now()
        self._thread.start()
        return ""

    def check(self) -> None:
        """Makes sure that this process has the lease, by when it was last renewed; renews one that has become stale.

        A process that has not taken it has nothing to check: the first one holds it for all.

        Raises:
            OSError: It is stale, and cannot be renewed.
            UnfinishedError: Another process has taken it.
        """
        if not self._lost and self._is_stale():
            self._renew_once()
        if self._lost:
            raise UnfinishedError(
                f"{self.path} was taken by another process while this one was stalled; the other continues"
            )

    def confirm(self) -> None:
        """Makes sure of it by reading the lease, as before a write.

        Raises:
            UnfinishedError: Another process has taken it.
        """
        self.check()
        with self._lock:
            self._lost = not self._is_mine()
        self.check()

    def release(self) -> None:
        """Releases the lease."""
        self._stop.set()
        self._thread.join()
        if not self._lost and self._is_mine():
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Creates the file if it is absent; returns whether this process did."""
        if is_remote(self.path):
            made = create_remote(str(self.path), self._text().encode())
            return not self.path.exists() and self._replace() if made is None else made
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(self._text())
        return True

    def _replace(self) -> bool:
        write_text(self.path, self._text())
        return self._settled()

    def _settled(self) -> bool:
        time.sleep(self._timing.settle)
        return self._is_mine()

    def _renew(self) -> None:
        """Renews until it is released or lost; an error may pass before patience ends, and then `check` tells the holder."""
        while not self._stop.wait(self._timing.renew) and not self._lost:
            try:
                self._renew_once()
            except Exception as error:
                log.warning("%s cannot be renewed now (%s); this is tried again", self.path, error)

    def _renew_once(self) -> None:
        """Renews the lease; one that was stale may be being taken, so it is written and looked at as by one who takes it."""
        with self._lock:
            stale = self._is_stale()
            if not self._lost and self._is_mine():
                self._count += 1
                write_text(self.path, self._text())
                if not stale or self._settled():
                    self._renewed = now()
                    return
            self._lost = True

    def _is_stale(self) -> bool:
        return self._renewed is not None and now() - self._renewed > self._timing.patience

    def _is_mine(self) -> bool:
        return f'"lease": "{self._name}"' in (_read(self.path) or "")

    def _text(self) -> str:
        return json.dumps({"lease": self._name, "renewed": self._count, **Process.this()._asdict()}) + "\n"


@contextlib.contextmanager
def held(path: epath.Path, what: str) -> Iterator[Lease]:
    """Holds a lease, for all processes of the run, while the block runs.

    Args:
        path: The lease's file.
        what: The work it protects, in the message.

    Raises:
        UnfinishedError: Another process holds it; on every process.
    """
    lease, holder = Lease(path), ""
    if jax.process_index() == 0:
        holder = lease.take()
    if _on_first(bool(holder)):
        raise UnfinishedError(f"{what} is held by {holder or 'another process'} ({path}); run again later to resume")
    try:
        with fence(path, lease.confirm) if jax.process_index() == 0 else contextlib.nullcontext():
            yield lease
    finally:
        if jax.process_index() == 0:
            lease.release()


def create_remote(url: str, data: bytes) -> bool | None:
    """Writes an object of a bucket if it is absent, in one step of the store; returns whether this process did.

    Returns:
        None where the store, or its client, has no such step.
    """
    try:
        system, name = fsspec.core.url_to_fs(url)
        system.pipe_file(name, data, mode="create")
    except FileExistsError:
        return False
    except (ImportError, NotImplementedError, TypeError, ValueError):
        return None
    return True


def _on_first(value: bool) -> bool:
    """Returns process 0's value on all processes."""
    return value if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _read(path: epath.Path) -> str | None:
    try:
        return path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None if not path.exists() else ""


def _owner(text: str) -> Process | None:
    """Returns the holder; None if the file does not name it, as when it is just being written."""
    try:
        content: Mapping[str, Any] = json.loads(text)
        return Process(**{name: content[name] for name in Process._fields})
    except (ValueError, KeyError, TypeError):
        return None
