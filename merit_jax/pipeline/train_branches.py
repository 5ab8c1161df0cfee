"""`branches/<k>/`: fine-tunes each branch from theta0, alone (MERIT Alg. 1, step 4)."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import jax

from merit_jax.checkpoints.branch_checkpoint import check_present, finished_leaves, finished_second_moment
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.core import sharding
from merit_jax.core.leaves import LeafReader
from merit_jax.core.types import Branch
from merit_jax.data.loader import TrainingBatches, training_batches
from merit_jax.pipeline.branch_parameters import branch_start, changed_leaves
from merit_jax.pipeline.held_out_loss import held_out
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage, timed
from merit_jax.pipeline.track_branch import tracked
from merit_jax.training.divergence import DivergedError, advice
from merit_jax.training.loop import Finished, fine_tune
from merit_jax.training.optimizer import make_schedule
from merit_jax.training.preemption import StopSignal, preemption_notice
from merit_jax.training.recorder import Recording
from merit_jax.training.schedule_free import evaluated_leaves
from merit_jax.training.second_moment import second_moment
from merit_jax.training.step import init_state
from merit_jax.workdir.artifact_types import ResumableFolder
from merit_jax.workdir.artifacts import plain, read_json, write_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.lease import held
from merit_jax.workdir.process import Process

log = logging.getLogger("merit_jax")

UNRECORDED = ("checkpoint_every", "log_every", "trackers", "project")
"""Keys of `config.train` that do not change what a branch learns."""

HELD_OUT = ("held_out_every", "held_out_examples")
"""Keys of `config.train` that change what a branch learns where it stops early."""

ADDED = {"average": "token", "keep_second_moment": False, "schedule_span": (0.0, 1.0), "patience": 0, "adapter": ""}
"""Keys of `config.train` that earlier versions lacked -> how those trained; recorded where it is another value."""


def train_branches(run: Run) -> bool:
    """Trains the branches that are not finished, one after the other; returns whether there were any."""

    def train() -> bool:
        trained = [train_branch(run, index) for index in range(len(load_partition(run).branches))]
        return any(trained)

    return timed(run, "train", train)


def train_branch(run: Run, index: int) -> bool:
    """Trains branch `index`, or resumes it; needs theta0, the data and `partition.json` only.

    Returns:
        Whether it was not finished.

    Raises:
        ValueError: There is no such branch, or its directory holds one that was made from other inputs.
        UnfinishedError: Another process trains it, or this one was preempted; run again later to resume.
    """
    return _stage(run, index)(run)


def finished_branch(run: Run, index: int) -> Mapping[str, Any]:
    """Reads the `done.json` of a branch.

    Raises:
        ValueError: There is no such branch, it is not finished, or it was made from other inputs than the run's.
    """
    return _stage(run, index).read(run)


def branch_leaves(run: Run, index: int) -> LeafReader:
    """Opens the parameters of theta0 that a finished branch has changed, after comparing its files with their checksums.

    A branch of adapters holds those alone: its kernels are read as sums of theta0's and their updates.

    Raises:
        ValueError: It is not finished, was made from other inputs than the run's, or is not as it was written.
    """
    return changed_leaves(run, checkpoint_leaves(run, index))


def checkpoint_leaves(run: Run, index: int) -> OrbaxLeaves:
    """Opens the leaves that a finished branch has trained, as its checkpoint holds them; raises as `branch_leaves`."""
    return finished_leaves(run.workdir.branch(index) / "checkpoints", finished_branch(run, index))


def branch_second_moment(run: Run, index: int) -> OrbaxLeaves:
    """Opens the second moment of Adam that a finished branch keeps.

    Raises:
        ValueError: It keeps none, or as for `branch_leaves`.
    """
    return finished_second_moment(run.workdir.branch(index) / "checkpoints", finished_branch(run, index))


def _stage(run: Run, index: int) -> Stage:
    """Returns the stage that trains a branch of the run's partition."""
    branches = load_partition(run).branches
    if not 0 <= index < len(branches):
        raise ValueError(f"there is no branch {index}; {run.workdir.partition} has branches 0 to {len(branches) - 1}")
    return Stage(
        lambda run: branch_inputs(run, branches[index]),
        lambda run, stop: _fine_tune(run, index, branches[index], stop)._asdict(),
        lambda run: ResumableFolder(run.workdir.branch_done(index)),
        guard=lambda run: _held(run, index),
        check=lambda run: check_present(run.workdir.branch(index) / "checkpoints"),
        command=f"merit branch --branch={index}",
    )


def branch_inputs(run: Run, branch: Branch) -> dict[str, Any]:
    """Returns everything that decides what a branch learns, as JSON values."""
    names = [part.dataset for part in branch.shares]
    train = {k: v for k, v in run.config.train.items() if run.config.train.adapter or not k.startswith("adapter_")}
    left_out = UNRECORDED if train["patience"] else (*UNRECORDED, *HELD_OUT)
    return {
        "theta0": run.theta0_fingerprint,
        "text": run.text_inputs,
        "datasets": run.digests(names),
        "shares": [part.to_list() for part in branch.shares],
        "order": branch.seed,
        "dtype": run.compute_dtype,
        "train": {k: v for k, v in train.items() if k not in left_out and (k not in ADDED or v != ADDED[k])},
        **({"held_out": _held_out_inputs(run, names)} if train["patience"] else {}),
    }


def _held_out_inputs(run: Run, names: list[str]) -> dict[str, Any]:
    """Returns what decides which held-out examples end the training early, beside the datasets' files."""
    images = {d.name: d.report.held_out_images for d in run.datasets if d.name in names and d.report.held_out_images}
    return {"max_held_out": run.config.mixture.max_held_out, "images": images}


@contextlib.contextmanager
def _held(run: Run, index: int) -> Iterator[StopSignal]:
    """Holds the branch's lease and catches a notice of preemption; yields the function that training asks before each step."""
    with held(run.workdir.branch_lease(index), f"branch {index}") as lease, preemption_notice() as preempted:

        def stop(step: int) -> bool:
            lease.check()
            return preempted(step)

        yield stop


def _fine_tune(run: Run, index: int, branch: Branch, stop: StopSignal) -> Finished:
    cfg, batches = run.config.train, branch_batches(run, branch)
    _refuse_diverged(run, index, branch)
    log.info("branch %d: %d datasets, %d steps, %d tokens", index, len(branch.shares), batches.steps, batches.tokens)
    run.on_first_process(lambda: _record_start(run, index, batches.steps))
    leaves, frozen = branch_start(run)
    with _remembers_divergence(run, index, branch), tracked(run, index) as watcher:
        return fine_tune(
            run.train_step,
            init_state(leaves, run.optimizer, sharding.of_optimizer(run.optimizer, leaves, run.mesh)),
            frozen,
            batches,
            make_schedule(cfg.schedule, cfg.learning_rate, cfg.warmup, batches.steps, cfg.schedule_span),
            theta0=leaves,
            directory=run.workdir.branch(index),
            mesh=run.mesh,
            inputs=fingerprint(branch_inputs(run, branch)),
            micro_batches=cfg.micro_batches,
            checkpoint_every=cfg.checkpoint_every,
            log_every=cfg.log_every,
            description=f"branch {index}",
            stop=stop,
            keep=partial(second_moment, optimizer=cfg.optimizer, b2=cfg.b2) if cfg.keep_second_moment else None,
            recording=Recording(
                evaluated_leaves(run.optimizer), held_out(run, branch, frozen), tuple(run.names), watcher
            ),
        )


@contextlib.contextmanager
def _remembers_divergence(run: Run, index: int, branch: Branch) -> Iterator[None]:
    """Says what to do about a branch that diverges, and records it: it is not trained to the same step again and again."""
    try:
        yield
    except DivergedError as error:
        mend = (
            advice(clip_norm=run.config.train.clip_norm, dtype=run.compute_dtype) if error.mend is None else error.mend
        )
        told = DivergedError(error.problem, mend)
        record = {"inputs": plain(branch_inputs(run, branch)), "message": str(told)}
        run.on_first_process(lambda: write_json(run.workdir.branch_diverged(index), record))
        raise told from None


def _refuse_diverged(run: Run, index: int, branch: Branch) -> None:
    """Refuses a branch that has diverged from the same inputs; with overwrite it is tried again, from its last checkpoint."""
    path = run.workdir.branch_diverged(index)
    if not path.exists():
        return
    record = read_json(path)
    if record["inputs"] == plain(branch_inputs(run, branch)) and not run.overwrite:
        raise DivergedError(f"{record['message']} (it has diverged before, and would again; {path} remembers it)", "")
    run.on_first_process(path.unlink)


def branch_batches(run: Run, branch: Branch) -> TrainingBatches:
    """Returns the batches that a branch trains on, with the exact number of steps and tokens."""
    cfg = run.config.train
    return training_batches(
        run.datasets,
        branch,
        epochs=cfg.epochs,
        row_length=cfg.row_length,
        batch_size=cfg.batch_size,
        seed=run.config.seed,
        reader=run.reader,
        image_tokens=cfg.image_tokens,
        own=sharding.own_rows(cfg.batch_size, run.mesh),
    )


def _record_start(run: Run, index: int, steps: int) -> None:
    """Records on which machine the branch runs, how often it was started, and how many steps it has in all."""
    path = run.workdir.branch_host(index)
    starts = read_json(path)["starts"] if path.exists() else 0
    record = {
        **Process.this()._asdict(),
        "processes": jax.process_count(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "starts": starts + 1,
        "steps": steps,
    }
    write_json(path, record)
