"""Identifies a process, so that another on the same machine can check whether it is alive."""

import functools
import os
import socket
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process anywhere.

    Attributes:
        host: Name of its machine.
        pid: Its number there.
        place: The machine since it was booted, and the name space of process numbers (a container's own); "" where the system
            does not say.
        began: When it began, in ticks since its machine was booted: another process may get its number. "" likewise.
    """

    host: str
    pid: int
    place: str
    began: str

    @classmethod
    def this(cls) -> "Process":
        """Returns the calling process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _place(), _began(pid))

    def lives(self) -> bool | None:
        """Returns whether it is running; None for a process of another machine."""
        return _began(self.pid) == self.began if self.place and self.place == _place() else None

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


@functools.cache
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """Field 22 of /proc/PID/stat; "" for a process that is not there, or has ended and is only waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
