"""Branches as processes of this machine, one or several at a time."""

import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from merit_jax.launch.launchers.interface import Exit, Job, JobContext
from merit_jax.launch.launchers.subprocesses import spawn, stop, tail


class Options(NamedTuple):
    """Shares of the machine.

    Attributes:
        parallel: Branches at one time.
        gpus: Numbers of the GPUs that are divided among them, as "0,1,2,3"; "": every branch sees all.
    """

    parallel: int = 1
    gpus: str = ""


class Local:
    """The launcher `local`."""

    detached = False

    def __init__(self, options: Options, context: JobContext) -> None:
        if options.parallel < 1:
            raise ValueError(f"--option=parallel={options.parallel}: expected at least 1")
        self.slots: int | None = options.parallel
        self._folder = context.folder
        self._shares = divide_gpus(options.gpus, options.parallel)
        self._running: dict[int, tuple[Job, subprocess.Popen, int]] = {}

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts processes, each with its share of the GPUs."""
        for job in jobs:
            if job.hosts > 1:
                raise ValueError(f"launcher local has one machine; got --hosts={job.hosts}, expected 1")
            taken = {share for _, _, share in self._running.values()}
            share = min(set(range(len(self._shares))) - taken)
            process = spawn(job.words, self._folder, job.log, self._shares[share])
            self._running[job.branch] = (job, process, share)

    def active(self) -> set[int]:
        """Returns the branches whose process `ended` has not reported."""
        return set(self._running)

    def ended(self) -> list[Exit]:
        """Returns the processes that have ended."""
        over = [(job, process) for job, process, _ in self._running.values() if process.poll() is not None]
        for job, _ in over:
            del self._running[job.branch]
        return [Exit(job.branch, process.returncode, tail(job.log)) for job, process in over]

    def stop(self) -> None:
        """Lets every branch save."""
        stop(process for _, process, _ in self._running.values())


def divide_gpus(gpus: str, parallel: int) -> list[dict[str, str]]:
    """Returns the environment variables that show each of the parallel branches its GPUs.

    Raises:
        ValueError: They cannot be divided evenly.

    Examples:
        >>> divide_gpus("0,1,2,3", 2)
        [{'CUDA_VISIBLE_DEVICES': '0,1'}, {'CUDA_VISIBLE_DEVICES': '2,3'}]
    """
    numbers = [number for number in gpus.split(",") if number]
    if len(numbers) % parallel:
        raise ValueError(
            f"--option=gpus={gpus}: {len(numbers)} GPUs cannot be divided among {parallel} branches; "
            f"give a multiple of {parallel}"
        )
    share = len(numbers) // parallel
    if not share:
        return [{}] * parallel
    return [{"CUDA_VISIBLE_DEVICES": ",".join(numbers[k * share : (k + 1) * share])} for k in range(parallel)]
