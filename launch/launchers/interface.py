"""Interface of supervisor and launchers: a branch is a command line; a launcher starts it and reports how it ended."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Job(NamedTuple):
    """One branch, as a command that may be started again at any time and then resumes.

    Attributes:
        branch: Its number.
        words: The command line after the name of the Python interpreter, without --distributed.
        log: Local file for its output.
        hosts: Machines that train it together.
    """

    branch: int
    words: tuple[str, ...]
    log: Path
    hosts: int = 1


class LauncherError(Exception):
    """The tool of a launcher did not answer this time; asked again, it may."""


class Exit(NamedTuple):
    """The end of a job.

    Attributes:
        branch: Its number.
        code: Exit code, negative for a signal; None if it was lost with its machine, or the launcher cannot know.
        tail: The last lines of its output.
    """

    branch: int
    code: int | None
    tail: str


class JobContext(NamedTuple):
    """Names and folders that the jobs of one workdir have in common.

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
    """Starts jobs somewhere; a method raises `LauncherError` where its tool does not answer, and has then changed nothing.

    Attributes:
        slots: Jobs that can be active at one time; None if the launcher has a queue of its own.
        detached: Whether jobs continue without the supervisor.
    """

    slots: int | None
    detached: bool

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts jobs, or queues them."""

    def active(self) -> set[int]:
        """Returns the branches that run or are queued here, or whose end `ended` has yet to report.

        Those of an earlier supervisor are included.
        """

    def ended(self) -> list[Exit]:
        """Returns the jobs that have ended since the last call."""

    def stop(self) -> None:
        """Preempts the jobs and waits until they have saved; those in a queue of the launcher's own stay there."""


class LauncherKind(NamedTuple):
    """An entry of `LAUNCHERS`.

    Attributes:
        options: A NamedTuple class whose fields are options, with defaults.
        open: (options, context) -> the launcher.
    """

    options: Any
    open: Callable[[Any, JobContext], Launcher]
