"""Names a process anywhere, and says whether it still runs."""

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
        return cls(socket.gethostname(), pid, _place(), _began(pid) or "")

    def lives(self) -> bool | None:
        """Returns whether it is running; None for a process of another machine, or one that this machine does not show."""
        if not self.place or not self.began or self.place != _place():
            return None
        began = _began(self.pid)
        if began is None:
            return None if _is_hidden(self.pid) else False
        return began == self.began

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


@functools.cache
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; "" for a process that has ended and is only waited for, None for one that is not shown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]


def _is_hidden(pid: int) -> bool:
    """Returns whether there is a process that /proc does not show, as with the mount option hidepid for those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
