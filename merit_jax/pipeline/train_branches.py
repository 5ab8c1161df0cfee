"""`branches/<k>/`: fine-tunes each branch from theta0, alone (MERIT Alg. 1, step 4)."""

import logging
from datetime import UTC, datetime
from typing import Any

import jax

from merit_jax.core import sharding, tree
from merit_jax.core.types import Branch
from merit_jax.data.loader import TrainingBatches, training_batches
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.training.loop import Finished, fine_tune
from merit_jax.training.optimizer import make_schedule
from merit_jax.training.preemption import StopSignal, preemption_notice
from merit_jax.training.step import init_state
from merit_jax.workdir.artifacts import is_current, read_json, write_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.lease import held
from merit_jax.workdir.process import Process

log = logging.getLogger("merit_jax")

UNRECORDED = ("checkpoint_every", "log_every")
"""Keys of `config.train` that do not change what a branch learns."""


def train_branches(run: Run) -> bool:
    """Trains the branches that are not finished, one after the other."""
    trained = [train_branch(run, index) for index in range(len(load_partition(run).branches))]
    return any(trained)


def train_branch(run: Run, index: int) -> bool:
    """Trains branch `index`, or carries on where a killed run left it. Needs theta0, the data and `partition.json` only.

    Raises:
        ValueError: There is no such branch, or its directory holds one that was made from other inputs.
        UnfinishedError: Another process trains it, or this one was told to stop; started again, it carries on.
    """
    branches = load_partition(run).branches
    if not 0 <= index < len(branches):
        raise ValueError(f"there is no branch {index}; {run.workdir.partition} has branches 0 to {len(branches) - 1}")
    branch, done = branches[index], run.workdir.branch_done(index)
    inputs = branch_inputs(run, branch)
    if is_current(done, inputs, overwrite=run.overwrite):
        return False
    with held(run.workdir.branch_lease(index), f"branch {index}") as lease, preemption_notice() as told:
        run.on_first_process(lambda: _prepare_directory(run, index, inputs))

        def stop(step: int) -> bool:
            lease.check()
            return told(step)

        finished = _fine_tune(run, index, inputs, stop)
        run.on_first_process(lambda: write_json(done, {"inputs": inputs, **finished._asdict()}))
    return True


def _fine_tune(run: Run, index: int, inputs: dict[str, Any], stop: StopSignal) -> Finished:
    branch, cfg = load_partition(run).branches[index], run.config.train
    batches = _batches(run, branch)
    log.info("branch %d: %d datasets, %d steps, %d tokens", index, len(branch.shares), batches.steps, batches.tokens)
    run.on_first_process(lambda: _record_start(run, index, batches.steps))
    leaves, frozen = tree.split(run.params, cfg.trainable)
    return fine_tune(
        run.train_step,
        init_state(leaves, run.optimizer, sharding.of_optimizer(run.optimizer, leaves, run.mesh)),
        frozen,
        batches,
        make_schedule(cfg.schedule, cfg.learning_rate, cfg.warmup, batches.steps),
        theta0=leaves,
        directory=run.workdir.branch(index),
        mesh=run.mesh,
        inputs=fingerprint(inputs),
        micro_batches=cfg.micro_batches,
        checkpoint_every=cfg.checkpoint_every,
        log_every=cfg.log_every,
        description=f"branch {index}",
        stop=stop,
    )


def branch_inputs(run: Run, branch: Branch) -> dict[str, Any]:
    """All that decides what a branch learns."""
    names = [share.dataset for share in branch.shares]
    train = run.config.train.to_dict()
    return {
        "theta0": run.theta0_fingerprint,
        "text": dict(run.text_inputs),
        "datasets": run.digests(names),
        "shares": [list(share) for share in branch.shares],
        "order": branch.seed,
        "train": {key: value for key, value in train.items() if key not in UNRECORDED},
    }


def _batches(run: Run, branch: Branch) -> TrainingBatches:
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


def _prepare_directory(run: Run, index: int, inputs: dict[str, Any]) -> None:
    """Makes the branch's directory one for these inputs; what was made from others is refused, or cleared on overwrite."""
    directory = run.workdir.branch(index)
    stamp = directory / "inputs.json"
    if not is_current(stamp, inputs, overwrite=run.overwrite):
        if stamp.exists():
            directory.rmtree()
        write_json(stamp, {"inputs": inputs})


def _record_start(run: Run, index: int, steps: int) -> None:
    """Says where the branch runs, how often it was started, and how many steps it has in all."""
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
