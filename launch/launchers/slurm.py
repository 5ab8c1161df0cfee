"""Starts branches as one Slurm array job."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from merit_jax.launch.launchers.interface import Exit, Job, JobContext, LauncherError
from merit_jax.launch.launchers.subprocesses import tail
from merit_jax.launch.launchers.templates import render
from merit_jax.workdir.artifacts import write_text
from merit_jax.workdir.paths import absolute

SECONDS = 120.0
"""Time that one of Slurm's commands may take."""

NO_ANSWER = re.compile(r"contact slurm|timed out|temporarily|refused|reset by peer|communication|busy|try again", re.I)
"""What sbatch says where its controller is away or has too much to do."""


class Options(NamedTuple):
    """Options of the batch script.

    Attributes:
        sbatch: Further words for sbatch, as "--partition=gpu --gpus-per-node=8".
        time: Limit of one start; the branch saves before it and is queued again.
        grace: Seconds before the limit at which the branch is preempted.
        setup: A line of shell before the command, as "module load cuda".
        python: The interpreter; "": that of the supervisor.
    """

    sbatch: str = ""
    time: str = "24:00:00"
    grace: int = 300
    setup: str = ""
    python: str = ""


class Slurm:
    """The launcher `slurm`: writes `branches.sbatch` and submits the branches that are not finished.

    Slurm keeps the queue, so a supervisor that is started again finds there the branches that an earlier one has submitted.
    """

    slots: int | None = None
    detached = True

    def __init__(self, options: Options, context: JobContext) -> None:
        self._options, self._context = options, context
        self._started: dict[int, tuple[Job, str]] = {}

    def start(self, jobs: Sequence[Job]) -> None:
        """Submits an array of these branches."""
        if not jobs:
            return
        script = self._context.files / "branches.sbatch"
        write_text(absolute(script), script_of(jobs[0], self._options, self._context))
        for job in jobs:
            job.log.parent.mkdir(parents=True, exist_ok=True)
        array = ",".join(str(job.branch) for job in jobs)
        number = _output_of("sbatch", "--parsable", f"--array={array}", str(script)).strip().partition(";")[0]
        self._started.update({job.branch: (job, number) for job in jobs})

    def active(self) -> set[int]:
        """Returns the branches in the queue, and those that have left it since the last call of `ended`."""
        return self._queued() | set(self._started)

    def ended(self) -> list[Exit]:
        """Returns the branches that this supervisor has submitted and that have left the queue."""
        queued = self._queued()
        over = {branch: found for branch, found in self._started.items() if branch not in queued}
        for branch in over:
            del self._started[branch]
        return [Exit(branch, _exit_code(number, branch), tail(job.log)) for branch, (job, number) in over.items()]

    def stop(self) -> None:
        """Leaves the branches in the queue: scancel removes them."""

    def _queued(self) -> set[int]:
        lines = _output_of("squeue", "--me", "--noheader", "--array", f"--name={self._context.name}", "--format=%K")
        return {int(line) for line in lines.split() if line.isdigit()}


def script_of(job: Job, options: Options, context: JobContext) -> str:
    """Returns the batch script, for any of the branches: each finds its number in the array's index."""
    words = [word for word in job.words if not word.startswith("--branch=")]
    return render(
        "branches.sbatch",
        name=context.name,
        folder=str(context.folder),
        logs=str(job.log.parent).replace("%", "%%"),
        hosts=job.hosts,
        options=options,
        sbatch=shlex.split(options.sbatch),
        command=shlex.join([options.python or sys.executable, *words]),
    )


def _exit_code(number: str, branch: int) -> int | None:
    """Returns the exit code of an array's task, which is known for a few minutes; None if it was killed or is forgotten."""
    try:
        lines = _output_of("scontrol", "--oneliner", "show", "job", f"{number}_{branch}")
    except LauncherError:
        return None
    found = re.search(r"\bExitCode=(\d+):(\d+)", lines)
    return int(found[1]) if found and found[2] == "0" else None


def _output_of(*words: str) -> str:
    """Returns the output of one of Slurm's commands.

    Raises:
        LauncherError: It failed this time; of sbatch, only where its controller did not answer.
        ValueError: It is not installed here, or sbatch refuses the job.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise LauncherError(f"{words[0]} did not answer within {SECONDS:.0f} seconds") from None
    except FileNotFoundError:
        raise ValueError(
            f"{words[0]} is not on this machine; start merit cluster on a login node of the cluster"
        ) from None
    if done.returncode:
        refused = words[0] == "sbatch" and not NO_ANSWER.search(done.stderr)
        raise (ValueError if refused else LauncherError)(f"{shlex.join(words)} failed: {done.stderr.strip()}")
    return done.stdout
