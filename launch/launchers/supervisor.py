"""Starts the branches that are not finished, until all are: what is finished is read from the workdir, every time."""

import logging
import signal
from collections import Counter
from collections.abc import Sequence

from launch.console.exit_codes import MISTAKE, UNFINISHED
from launch.launchers.interface import Exit, Job, Launcher
from merit_jax.workdir.lease import LeaseObserver
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")

TOLD = (UNFINISHED, -signal.SIGTERM, 128 + signal.SIGTERM)
"""Exit codes of a branch that was told to stop: it is started again, however often."""


class Supervisor:
    """Keeps an engine busy.

    It remembers only what it has seen itself: how often a branch has crashed, so that a limit stops it. Another driver on the
    same workdir does not disturb it: a branch that is in another process's hands, by its lease, is left alone.

    Attributes:
        failed: Branch -> why it is not started any more.

    Args:
        engine: Starts them.
        jobs: One for each branch.
        workdir: The run's.
        retries: Crashes of a branch after which it is started again.
    """

    def __init__(self, engine: Launcher, jobs: Sequence[Job], workdir: Workdir, retries: int) -> None:
        self.failed: dict[int, str] = {}
        self._engine, self._jobs, self._workdir, self._retries = engine, jobs, workdir, retries
        self._leases = {job.branch: LeaseObserver(workdir.branch_lease(job.branch)) for job in jobs}
        self._crashes: Counter[int] = Counter()

    def poll(self) -> bool:
        """Takes note of what has ended and starts what can be started.

        Returns:
            Whether every branch is finished, or has failed.
        """
        for end in self._engine.ended():
            self._note(end)
        active = self._engine.active()
        left = [job for job in self._jobs if job.branch not in self.failed and not self._finished(job)]
        free = [job for job in left if job.branch not in active and self._leases[job.branch].free()]
        slots = self._engine.slots
        chosen = free if slots is None else free[: max(0, slots - len(active))]
        if chosen:
            self._engine.start(chosen)
        return not left

    def _finished(self, job: Job) -> bool:
        return self._workdir.branch_done(job.branch).exists()

    def _note(self, end: Exit) -> None:
        if self._workdir.branch_done(end.branch).exists():
            return
        if end.code in TOLD:
            log.info("branch %d was told to stop, or is in other hands; it is started again", end.branch)
        elif end.code == MISTAKE:
            self.failed[end.branch] = end.tail
        else:
            self._crashes[end.branch] += 1
            how = "was lost with its machine" if end.code is None else f"ended with code {end.code}"
            if self._crashes[end.branch] > self._retries:
                self.failed[end.branch] = f"{how}, for the {self._crashes[end.branch]}th time\n{end.tail}"
            log.warning("branch %d %s, unfinished\n%s", end.branch, how, end.tail)
