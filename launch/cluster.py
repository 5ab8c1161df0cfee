"""Trains the branches of a run wherever there are machines, follows them, and merges when all are finished.

merit cluster --config=quickstart --workdir=runs/quickstart                      # here, one after the other
merit cluster --config=CONFIG --workdir=DIR --launcher=ray --option=gpus=8
merit cluster --config=CONFIG --workdir=DIR --launcher=slurm --option=sbatch="--partition=gpu --gpus-per-node=8"

Stopped and run again, on this machine or another, it resumes from the files in the workdir.
"""

import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from merit_jax.core.errors import FailedError, UnfinishedError
from merit_jax.launch.console import app
from merit_jax.launch.console.branch_status import BranchStatus, branch_status
from merit_jax.launch.console.branch_table import live_table
from merit_jax.launch.console.exit_codes import MISTAKE, UNFINISHED
from merit_jax.launch.launchers import LAUNCHERS, open_launcher
from merit_jax.launch.launchers.interface import Job, JobContext
from merit_jax.launch.launchers.subprocesses import stop
from merit_jax.launch.launchers.supervisor import PATIENCE, Supervisor
from merit_jax.pipeline.rounds import in_rounds, round_config, round_numbers
from merit_jax.pipeline.stages import BEFORE
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.consistency import check_partition
from merit_jax.workdir.paths import Workdir, is_remote
from merit_jax.workdir.version import refuse_older

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string(
        "workdir", None, "Directory of the run, which all machines can reach (or gs://...).", required=True
    )
    flags.DEFINE_enum("launcher", "local", list(LAUNCHERS), "Starts the branches.")
    flags.DEFINE_alias("engine", "launcher")
    flags.DEFINE_multi_string(
        "option", [], "Options of the launcher, each as KEY=VALUE (see docs/guides/clusters/index.md)"
    )
    flags.DEFINE_integer("hosts", 1, "Machines that train one branch together.", lower_bound=1)
    flags.DEFINE_integer("retries", 3, "Crashes of a branch after which it is started again.", lower_bound=0)
    flags.DEFINE_bool(
        "watch", True, "Stay until all branches are finished, then merge; --nowatch submits them, or writes files."
    )
    flags.DEFINE_float("interval", 5.0, "Seconds between two looks at the workdir.", lower_bound=0.01)
    flags.DEFINE_string("files", "", "Local folder for rendered files; empty: jobs/ in the workdir.")
    flags.DEFINE_string(
        "after", "search,merge,project,export", "Stages of merit run that follow the branches; empty: none."
    )
    flags.DEFINE_bool("allow_missing", False, "If branches fail, merge the others, and name the missing datasets.")


def main(argv: Sequence[str]) -> int:
    """Partitions the mixture if need be, trains, merges."""
    app.config()
    with interruptible():
        return drive(Workdir.at(FLAGS.workdir))


def drive(workdir: Workdir) -> int:
    """Does what is left to do in a workdir.

    Raises:
        FailedError: Branches have crashed too often.
        ValueError: Branches have failed by a mistake.
    """
    refuse_older(workdir)
    config = app.config()
    if in_rounds(config):
        drive_rounds(workdir, config)
        failed = False
    else:
        failed = drive_branches(workdir, config.partition)
    if FLAGS.watch and FLAGS.after:
        run_here("merit_jax.launch.run", f"--stages={FLAGS.after}", *(["--allow_missing"] if failed else []))
    return 0


def drive_rounds(workdir: Workdir, config: ConfigDict) -> None:
    """Trains the branches of every round, as `drive_branches` does, and merges them before the next one.

    Without `--watch`, the branches of the first round that is not finished are submitted, and that is all.

    Raises:
        FailedError: Branches have crashed too often.
        ValueError: Branches have failed by a mistake, or may be missing.
    """
    if FLAGS.allow_missing:
        raise ValueError("--allow_missing: a round starts from the whole merge of the one before; leave it out")
    for number in round_numbers(config):
        home = Workdir.at(workdir.round(number))
        if home.merge_record.exists():
            continue
        drive_branches(home, round_config(config, workdir, number).partition, (f"--round={number}",))
        if not all(home.branch_done(job.branch).exists() for job in jobs_of(home)):
            return
        if number < config.rounds.count:
            run_here("merit_jax.launch.run", f"--round={number}", "--stages=merge")


def drive_branches(workdir: Workdir, partition: ConfigDict, words: Sequence[str] = ()) -> bool:
    """Partitions the mixture if need be, and trains the branches of a workdir.

    Args:
        workdir: That of the run, or of one of its rounds.
        partition: The section `partition` of its config.
        words: Flags that name the round in commands.

    Returns:
        Whether branches have failed, which `--allow_missing` lets pass.

    Raises:
        FailedError: Branches have crashed too often.
        ValueError: Branches have failed by a mistake.
    """
    if not workdir.partition.exists():
        run_here("merit_jax.launch.run", *words, f"--stages={','.join(BEFORE)}")
    check_partition(workdir, partition)
    jobs = jobs_of(workdir, words)
    launcher = open_launcher(FLAGS.launcher, FLAGS.option, job_context(workdir))
    if not FLAGS.watch and not launcher.detached:
        raise ValueError(
            f"--nowatch: launcher {FLAGS.launcher} runs branches only while this command runs; leave --nowatch out"
        )
    supervisor = Supervisor(launcher, jobs, workdir, FLAGS.retries, patience=PATIENCE if FLAGS.watch else 0.0)
    if not FLAGS.watch:
        supervisor.poll()
        return False
    try:
        with live_table(lambda: statuses(workdir, supervisor), supervisor.failed) as show:
            while not supervisor.poll():
                show()
                time.sleep(FLAGS.interval)
            show()
    finally:
        launcher.stop()
    failed = supervisor.failed
    if failed and not FLAGS.allow_missing:
        error = ValueError if supervisor.mistaken else FailedError
        raise error("\n".join(f"branch {branch} failed: {reason}" for branch, reason in failed.items()))
    return bool(failed)


def statuses(workdir: Workdir, supervisor: Supervisor) -> list[BranchStatus]:
    """Returns the status of every branch."""
    return [branch_status(workdir, branch, lease) for branch, lease in supervisor.leases.items()]


def jobs_of(workdir: Workdir, words: Sequence[str] = ()) -> list[Job]:
    """Returns a job for each branch of `partition.json`; `words` are further flags of its command."""
    count = len(read_json(workdir.partition)["branches"])
    logs = [workdir.branch_log(k) for k in range(count)]
    if is_remote(workdir.root):
        logs = [Path("logs") / name_of(workdir) / log.name for log in logs]
    commands = [("-m", "merit_jax.launch.branch", *shared_words(), *words, f"--branch={k}") for k in range(count)]
    return [Job(k, commands[k], Path(logs[k]).absolute(), FLAGS.hosts) for k in range(count)]


def shared_words() -> list[str]:
    """Returns the flags of all commands on this run: its config with every override, workdir, compilation cache."""
    given = FLAGS["config"]
    overrides = config_flags.get_override_values(given)
    return [
        f"--config={config_flags.get_config_filename(given)}",
        *(f"--config.{key}={value}" for key, value in overrides.items()),
        f"--workdir={Workdir.at(FLAGS.workdir).root}",
        f"--compilation_cache={FLAGS.compilation_cache}",
    ]


def job_context(workdir: Workdir) -> JobContext:
    """Returns the names and folders that the jobs have in common."""
    files = Path(FLAGS.files or workdir.root / "jobs")
    if not FLAGS.files and is_remote(workdir.root):
        files = Path("jobs") / name_of(workdir)
    return JobContext(name_of(workdir), Path.cwd(), files.absolute())


def name_of(workdir: Workdir) -> str:
    """Returns the run's part of the names of jobs."""
    return f"merit-{fingerprint(str(workdir.root))[:8]}"


def run_here(module: str, *words: str) -> None:
    """Runs another command on this machine, and waits while another process does its work.

    Raises:
        FailedError: It crashed, or the machine failed it.
        ValueError: It found a mistake; it has printed the reason.
    """
    command = [sys.executable, "-m", module, *shared_words(), *words]
    while (code := _code_of(command)) == UNFINISHED:
        time.sleep(FLAGS.interval)
    if code:
        error = ValueError if code == MISTAKE else FailedError
        raise error(f"{shlex.join(command)} ended with code {code}")


def _code_of(command: Sequence[str]) -> int:
    """Runs a command to its end; interrupted, lets it end first, as it has been interrupted too or is told so here."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        stop([process])
        raise


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ends the block by UnfinishedError on Ctrl-C or SIGTERM."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise UnfinishedError("stopped; run the same command again to resume") from None
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    app.start(main, define_flags, computes=False)
