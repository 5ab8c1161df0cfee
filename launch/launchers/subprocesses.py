"""Starts and stops commands as processes of this machine."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

SAVE_SECONDS = 300.0
"""Time that a preempted process may take to save."""

TAIL_LINES = 20
"""Lines of a log that are reported when its process ends."""

TAIL_BYTES = 2**14


def spawn(
    words: Sequence[str], folder: Path, log: Path, changes: Mapping[str, str] | None = None, *, bound: bool = False
) -> subprocess.Popen:
    """Starts Python with a command line in a terminal group of its own, so that Ctrl-C reaches the supervisor alone.

    Args:
        words: The command line after the interpreter's name.
        folder: Its working directory.
        log: File to which its output is appended.
        changes: Changes to the environment.
        bound: Whether it is killed when this process dies (on Linux).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env={**os.environ, **(changes or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if bound and sys.platform == "linux" else None,
        )


def _die_with_parent() -> None:
    """PR_SET_PDEATHSIG: runs in the child, before its program."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def stop(processes: Iterable[subprocess.Popen], seconds: float = SAVE_SECONDS) -> None:
    """Preempts processes, which save and stop; kills those that take longer than `seconds` each."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tail(log: Path) -> str:
    """Returns the last lines of a log; "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-TAIL_LINES:])
