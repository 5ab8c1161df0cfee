"""What reading any file may not do: hang, fill the memory, touch other files, start programs, use the network."""

import contextlib
import os
import resource
import signal
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
SECONDS = 10
"""Of the processor; of the clock, `WAITING` times as many."""
WAITING = 6
GROWTH = 2**30
"""Bytes by which the peak of the process's memory may grow while one file is read."""
ROOM = 4 * 2**30
"""Bytes of address space beyond those at the start."""
LIBRARIES = tuple(
    {sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), str(REPOSITORY), "/usr", "/lib", "/proc", "/sys"}
)
"""Where Python and its packages may read what they load late."""
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn")
STARTS = ("subprocess.Popen", "os.posix_spawn")
"""What a start by `subprocess` is told as: from Python 3.13 on by both."""
TRIALS = tuple(
    str(REPOSITORY / name) for name in ("models/processing/trial_child.py", "merit_jax/data/template_child.py")
)
"""The programs that may be started: they try a tokenizer or a template within limits of their own."""
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request", "http.client.connect")
FILES = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
    "os.chown",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class HangError(BaseException):
    """Reading took more than `SECONDS`; no reader can catch it as an error of a file."""


class Watch:
    """What the audit hook has seen in the code that is being watched."""

    def __init__(self) -> None:
        self.roots: Sequence[str] | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if self.roots is None:
            return
        roots, self.roots = self.roots, None
        try:
            self._look(event, arguments, roots)
        finally:
            self.roots = roots

    def _look(self, event: str, arguments: tuple[Any, ...], roots: Sequence[str]) -> None:
        if event in STARTS and any(word in TRIALS for word in map(str, arguments[1])):
            return
        if event in PROGRAMS or event in NETWORK or event == "pickle.find_class":
            self.seen.append(f"{event}{arguments[:2]!r:.200}")
        elif event == "open" and not isinstance(arguments[0], int):
            writing = bool((arguments[2] or 0) & WRITING)
            self._check(arguments[0], roots if writing else (*roots, *LIBRARIES), "written" if writing else "read")
        elif event in FILES:
            self._check(arguments[0], roots, event)

    def _check(self, path: Any, roots: Sequence[str], what: str) -> None:
        real = os.path.realpath(os.fsdecode(path))
        if real != os.devnull and not any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots):
            self.seen.append(f"{what} outside: {real}")


_watch = Watch()
_installed: list[Watch] = []


@contextlib.contextmanager
def guarded(root: Path, seconds: float = SECONDS) -> Iterator[list[str]]:
    """Runs code that may touch `root` alone; gives the list of what it did wrong, which is complete at the end.

    Raises:
        HangError: It takes more than that.
    """
    if not _installed:
        sys.addaudithook(_watch)
        _installed.append(_watch)

    def hang(*_: Any) -> None:
        raise HangError

    before, _watch.seen = peak(), []
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, WAITING * seconds)}
    previous = {number: signal.signal(number, hang) for number in timers}
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + ROOM, limits[1]))
    for timer, length in timers.values():
        signal.setitimer(timer, length)
    _watch.roots = (os.path.realpath(root),)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield _watch.seen
    finally:
        _watch.roots = None
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, previous[number])
        resource.setrlimit(resource.RLIMIT_AS, limits)
    if peak() - before > GROWTH:
        _watch.seen.append(f"took {(peak() - before) / 2**20:.0f} MiB")


def peak() -> int:
    """Bytes of memory that the process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
