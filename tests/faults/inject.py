"""A fault in the process that runs a command: killed, interrupted, superseded, out of room, without files, with another clock.

A moment is the number of a file operation of Python below the workdir (open for writing, rename, make or remove a folder, ...),
which an audit hook counts. What C++ writes is in no count; its room is limited by the size of a file (`ulimit -f`) or of a tmpfs.
"""

import errno
import os
import pathlib
import resource
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")


def inject(fault: Mapping[str, Any], workdir: str) -> None:
    """Puts one fault into this process.

    Args:
        fault: {"kind": one of `KINDS`, ...}.
        workdir: The folder whose operations count.
    """
    KINDS[fault["kind"]](fault, os.path.realpath(workdir))


def _none(fault: Mapping[str, Any], workdir: str) -> None:
    pass


def _count(fault: Mapping[str, Any], workdir: str) -> None:
    """Writes the number of operations so far to the file `to` after each."""

    def note(number: int, path: str, event: str) -> None:
        with open(fault["to"], "w") as file:
            file.write(str(number))

    _hook(workdir, note)


def _kill(fault: Mapping[str, Any], workdir: str) -> None:
    """SIGKILL right before operation number `at`."""

    def die(number: int, path: str, event: str) -> None:
        if number == fault["at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    _hook(workdir, die)


def _refuse(fault: Mapping[str, Any], workdir: str) -> None:
    """Every operation from number `at` on fails with `errno`; a full disk still lets files be removed and renamed."""
    code = getattr(errno, fault["errno"])

    def fail(number: int, path: str, event: str) -> None:
        spared = event in ("os.remove", "os.rmdir", "os.rename") if fault["errno"] == "ENOSPC" else False
        if number >= fault["at"] and not spared:
            raise OSError(code, os.strerror(code), path)

    _hook(workdir, fail)


def _unreadable(fault: Mapping[str, Any], workdir: str) -> None:
    """The files that are opened for reading number `at` to `at` + `times` are refused with `errno`, and then no more."""
    code = getattr(errno, fault["errno"])

    def fail(number: int, path: str, event: str) -> None:
        if fault["at"] <= number < fault["at"] + fault["times"]:
            raise OSError(code, os.strerror(code), path)

    _hook(workdir, fail, reading=True)


def _interrupt(fault: Mapping[str, Any], workdir: str) -> None:
    """SIGINT right before operation number `at`."""

    def interrupt(number: int, path: str, event: str) -> None:
        if number == fault["at"]:
            os.kill(os.getpid(), signal.SIGINT)

    _hook(workdir, interrupt)


def _superseded(fault: Mapping[str, Any], workdir: str) -> None:
    """At operation number `at` the process finds that it was suspended, and that another has taken all that it held."""

    def take(number: int, path: str, event: str) -> None:
        if number == fault["at"]:
            for lease in pathlib.Path(workdir).rglob("*.lease"):
                lease.write_text('{"lease": "theirs"}')

    _hook(workdir, take)


def _file_size(fault: Mapping[str, Any], workdir: str) -> None:
    """No file can become larger than `bytes`; Python and C++ are told "File too large"."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], fault["bytes"]))


def _clock(fault: Mapping[str, Any], workdir: str) -> None:
    """The wall clock jumps by up to `seconds`, there and back, each time it is read; the monotonic clock does not."""
    real, real_ns, reads = time.time, time.time_ns, iter(range(10**9))

    def jump() -> float:
        return fault["seconds"] * ((next(reads) * 7919) % 3 - 1)

    time.time = lambda: real() + jump()
    time.time_ns = lambda: real_ns() + int(jump() * 1e9)


KINDS = {
    "none": _none,
    "count": _count,
    "kill": _kill,
    "refuse": _refuse,
    "unreadable": _unreadable,
    "interrupt": _interrupt,
    "superseded": _superseded,
    "file_size": _file_size,
    "clock": _clock,
}


def _hook(workdir: str, act: Any, *, reading: bool = False) -> None:
    state = {"number": 0, "busy": False}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if state["busy"] or (event != "open" and event not in CHANGES):
            return
        if event == "open" and (isinstance(arguments[0], int) or bool((arguments[2] or 0) & WRITING) == reading):
            return
        if reading and event != "open":
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if not path.startswith(workdir + "/") or (event == "os.mkdir" and os.path.isdir(path)):
            return
        state["number"] += 1
        state["busy"] = True
        try:
            act(state["number"], path, event)
        finally:
            state["busy"] = False

    sys.addaudithook(hook)
