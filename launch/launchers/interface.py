"""The seam between the driver and the engines: a branch is a command line, and an engine starts it and tells how it ended."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Job(NamedTuple):
    """One branch, as a command that may be started again at any time and then carries on.

    Attributes:
        branch: Its number.
        words: The command line after the name of the Python interpreter, without --distributed.
        log: Local file for what it prints.
        hosts: Machines that work on it together.
    """

    branch: int
    words: tuple[str, ...]
    log: Path
    hosts: int = 1


class Exit(NamedTuple):
    """How a job ended.

    Attributes:
        branch: Its number.
        code: Exit code, negative for a signal; None if it was lost with its machine, or the engine cannot tell.
        tail: The last lines that it printed.
    """

    branch: int
    code: int | None
    tail: str


class JobContext(NamedTuple):
    """What the jobs of one workdir have in common.

    Attributes:
        name: Of the run, in names of jobs: letters, digits and hyphens, the same for the same workdir.
        folder: The repository, from which commands run.
        files: Folder for rendered files.
    """

    name: str
    folder: Path
    files: Path


@runtime_checkable
class Launcher(Protocol):
    """Starts jobs somewhere.

    Attributes:
        slots: Jobs that can be active at one time; None if the engine has a queue of its own.
        detached: Whether jobs go on without the driver.
    """

    slots: int | None
    detached: bool

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts jobs, or queues them."""

    def active(self) -> set[int]:
        """Branches that are running or queued here, or of which `ended` has not yet told; an earlier driver's included."""

    def ended(self) -> list[Exit]:
        """Jobs that have ended since the last call."""

    def stop(self) -> None:
        """Tells the jobs to save and stop, and waits for them; those in a queue of the engine's own stay there."""


class LauncherKind(NamedTuple):
    """An entry of `ENGINES`.

    Attributes:
        options: A NamedTuple of options with defaults.
        open: (options, site) -> the engine.
    """

    options: type
    open: Callable[[Any, JobContext], Launcher]
