"""Starts the branches that are not finished, and starts them again, until all are."""

import logging
import signal
from collections import Counter
from collections.abc import Sequence

from launch.console.branch_status import FINISHED, TRAINING, branch_state
from launch.console.exit_codes import MISTAKE, UNFINISHED
from launch.launchers.interface import Exit, Job, Launcher
from merit_jax.workdir.lease import LeaseObserver
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")

PREEMPTED = (UNFINISHED, -signal.SIGTERM, 128 + signal.SIGTERM)
"""Exit codes of a preempted branch: it is started again, however often."""


class Supervisor:
    """Keeps a launcher busy until every branch is finished, as the workdir's files say.

    It remembers only what it has seen itself: how often a branch has crashed, so that a limit stops it. Another supervisor on
    the same workdir does not disturb it: a branch that another process is training, by its lease, is left alone.

    Attributes:
        failed: Branch -> reason why it is not started any more.
        leases: Branch -> observer of its lease, also for `branch_status`.

    Args:
        launcher: Starts the branches.
        jobs: One for each branch.
        workdir: The run's.
        retries: Crashes of a branch after which it is started again.
    """

    def __init__(self, launcher: Launcher, jobs: Sequence[Job], workdir: Workdir, retries: int) -> None:
        self.failed: dict[int, str] = {}
        self.leases = {job.branch: LeaseObserver(workdir.branch_lease(job.branch)) for job in jobs}
        self._launcher, self._jobs, self._workdir, self._retries = launcher, jobs, workdir, retries
        self._crashes: Counter[int] = Counter()

    def poll(self) -> bool:
        """Registers what has ended and starts what can be started.

        Returns:
            Whether every branch is finished, or has failed.
        """
        for end in self._launcher.ended():
            self._register(end)
        active = self._launcher.active()
        states = {job.branch: branch_state(self._workdir, job.branch, self.leases[job.branch]) for job in self._jobs}
        left = [job for job in self._jobs if job.branch not in self.failed and states[job.branch] != FINISHED]
        free = [job for job in left if job.branch not in active and states[job.branch] != TRAINING]
        slots = self._launcher.slots
        chosen = free if slots is None else free[: max(0, slots - len(active))]
        if chosen:
            self._launcher.start(chosen)
        return not left

    def _register(self, end: Exit) -> None:
        if self._workdir.branch_done(end.branch).exists():
            return
        if end.code in PREEMPTED:
            log.info("branch %d was preempted, or another process is training it; it will be started again", end.branch)
        elif end.code == MISTAKE:
            self.failed[end.branch] = end.tail
        else:
            self._crashes[end.branch] += 1
            how = "was lost with its machine" if end.code is None else f"ended with code {end.code}"
            if self._crashes[end.branch] > self._retries:
                self.failed[end.branch] = f"{how}, for the {self._crashes[end.branch]}th time\n{end.tail}"
            log.warning("branch %d %s, unfinished\n%s", end.branch, how, end.tail)
