"""Starts the branches that are not finished, and starts them again, until all are."""

import logging
import signal
import time
from collections.abc import Sequence

from merit_jax.core.errors import FailedError
from merit_jax.launch.console.branch_status import FINISHED, TRAINING, branch_state
from merit_jax.launch.console.exit_codes import INTERRUPTED, MISTAKE, UNFINISHED
from merit_jax.launch.launchers.interface import Exit, Job, Launcher, LauncherError
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.lease import LeaseObserver
from merit_jax.workdir.paths import Workdir, is_there

log = logging.getLogger("merit_jax")

PREEMPTED = (UNFINISHED, -signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGINT, INTERRUPTED)
"""Exit codes of a preempted branch: it is started again, however often."""

PATIENCE = 600.0
"""Seconds for which a launcher's tool, or the folder of the run, may fail without an end of the supervisor."""


class Supervisor:
    """Keeps a launcher busy until every branch is finished, as the workdir's files say.

    How often a branch has crashed is kept in the workdir, so that the limit holds whoever supervises. Another supervisor on the
    same workdir does not disturb it: a branch that another process is training, by its lease, is left alone.

    Attributes:
        failed: Branch -> reason why it is not started any more.
        mistaken: Whether one of those has ended by a mistake of the user.
        leases: Branch -> observer of its lease, also for `branch_status`.

    Args:
        launcher: Starts the branches.
        jobs: One for each branch.
        workdir: The run's.
        retries: Crashes of a branch after which it is started again.
        patience: Seconds for which the launcher's tool may fail.
    """

    def __init__(
        self, launcher: Launcher, jobs: Sequence[Job], workdir: Workdir, retries: int, patience: float = PATIENCE
    ) -> None:
        self.failed: dict[int, str] = {}
        self.mistaken = False
        self.leases = {job.branch: LeaseObserver(workdir.branch_lease(job.branch)) for job in jobs}
        self._launcher, self._jobs, self._workdir, self._retries = launcher, jobs, workdir, retries
        self._patience, self._failing_since = patience, 0.0
        for job in jobs:
            self._give_up(job.branch)

    def poll(self) -> bool:
        """Registers what has ended and starts what can be started.

        Returns:
            Whether every branch is finished, or has failed.

        Raises:
            FailedError: The launcher's tool, or the folder of the run, has failed for longer than `patience`.
        """
        try:
            done = self._poll()
        except (LauncherError, OSError) as error:
            self._failing_since = self._failing_since or time.monotonic()
            if time.monotonic() - self._failing_since >= self._patience:
                raise FailedError(f"{error}; run the same command again to resume") from error
            log.warning("%s; this is tried again", error)
            return False
        self._failing_since = 0.0
        return done

    def _poll(self) -> bool:
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
        if is_there(self._workdir.branch_done(end.branch)):
            return
        if end.code in PREEMPTED:
            log.info("branch %d was preempted, or another process is training it; it will be started again", end.branch)
        elif end.code == MISTAKE:
            self.failed[end.branch], self.mistaken = end.tail, True
        else:
            how = "was lost with its machine" if end.code is None else f"ended with code {end.code}"
            log.warning("branch %d %s, unfinished\n%s", end.branch, how, end.tail)
            crashes = self._crashes(end.branch) + 1
            write_json(self._workdir.branch_crashes(end.branch), {"crashes": crashes, "last": f"{how}\n{end.tail}"})
            self._give_up(end.branch)

    def _give_up(self, branch: int) -> None:
        """Counts a branch as failed if it has crashed too often."""
        if (crashes := self._crashes(branch)) > self._retries:
            path = self._workdir.branch_crashes(branch)
            self.failed[branch] = (
                f"it has crashed {crashes} times, and last {read_json(path)['last']}\n(to start it again, raise --retries or "
                f"delete {path})"
            )

    def _crashes(self, branch: int) -> int:
        path = self._workdir.branch_crashes(branch)
        return read_json(path)["crashes"] if is_there(path) else 0
