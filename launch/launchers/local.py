"""Branches as processes of this machine, one or several at a time."""

import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from launch.launchers.interface import Exit, Job, JobContext
from launch.launchers.subprocesses import spawn, stop, tail


class Options(NamedTuple):
    """How the machine is shared.

    Attributes:
        parallel: Branches at one time.
        gpus: Numbers of the GPUs that are dealt out over them, as "0,1,2,3"; "": every branch sees all.
    """

    parallel: int = 1
    gpus: str = ""


class Local:
    """The engine `local`."""

    detached = False

    def __init__(self, options: Options, site: JobContext) -> None:
        if options.parallel < 1:
            raise ValueError(f"--option=parallel={options.parallel}: expected at least 1")
        self.slots = options.parallel
        self._folder = site.folder
        self._places = deal(options.gpus, options.parallel)
        self._running: dict[int, tuple[Job, subprocess.Popen, int]] = {}

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts processes, each with its share of the GPUs."""
        for job in jobs:
            if job.hosts > 1:
                raise ValueError(f"engine local has one machine; got --hosts={job.hosts}")
            taken = {place for _, _, place in self._running.values()}
            place = min(set(range(len(self._places))) - taken)
            process = spawn(job.words, self._folder, job.log, self._places[place])
            self._running[job.branch] = (job, process, place)

    def active(self) -> set[int]:
        """Branches whose process has not been told of as ended."""
        return set(self._running)

    def ended(self) -> list[Exit]:
        """Processes that have ended."""
        over = [(job, process) for job, process, _ in self._running.values() if process.poll() is not None]
        for job, _ in over:
            del self._running[job.branch]
        return [Exit(job.branch, process.returncode, tail(job.log)) for job, process in over]

    def stop(self) -> None:
        """Lets every branch save."""
        stop(process for _, process, _ in self._running.values())


def deal(gpus: str, parallel: int) -> list[dict[str, str]]:
    """The change of environment that shows each of the parallel branches its GPUs.

    Raises:
        ValueError: They cannot be dealt out evenly.
    """
    numbers = [number for number in gpus.split(",") if number]
    if len(numbers) % parallel:
        raise ValueError(f"--option=gpus={gpus}: {len(numbers)} GPUs cannot be dealt out over {parallel} branches")
    share = len(numbers) // parallel
    if not share:
        return [{}] * parallel
    return [{"CUDA_VISIBLE_DEVICES": ",".join(numbers[k * share : (k + 1) * share])} for k in range(parallel)]
