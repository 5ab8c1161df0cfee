"""Fine-tunes one branch from theta0, and resumes where a killed run stopped."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Int64

from merit_jax.checkpoints.branch_checkpoint import Checkpoints, Progress
from merit_jax.core import tree
from merit_jax.core.errors import UnfinishedError
from merit_jax.core.progress import bar
from merit_jax.core.sharding import place_batch
from merit_jax.core.types import Batch, Leaves, TrainState
from merit_jax.training.divergence import DivergedError
from merit_jax.training.metrics_log import MetricsLog
from merit_jax.training.preemption import StopSignal, never_stop
from merit_jax.training.step import TrainStep


@runtime_checkable
class Loader(Protocol):
    """Data of one branch: a known number of batches, of tokens in each, and an iterator whose state can be saved."""

    @property
    def steps(self) -> int:
        """The number of batches."""

    @property
    def supervised(self) -> Sequence[int] | Int64[np.ndarray, " steps"]:
        """The supervised tokens of each batch."""

    @property
    def read(self) -> Sequence[int] | Int64[np.ndarray, " steps"]:
        """The tokens of each batch that the forward pass reads, padding left out."""

    def iterator(self) -> Any:
        """Returns an iterator over host batches, leaves [rows, length], with `get_state` and `set_state`.

        The rows that this process's devices have no part of need no content.
        """


class Finished(NamedTuple):
    """A trained branch.

    Attributes:
        steps: Optimizer steps taken.
        tokens: Supervised tokens trained on.
        all_tokens: Tokens that the forward pass read in training: prompts, responses and images, not padding.
        fingerprint: Of the trained parameters, by `tree.fingerprint`.
        seconds: Wall time of this call (a resumed part only counts itself).
    """

    steps: int
    tokens: int
    all_tokens: int
    fingerprint: str
    seconds: float


def fine_tune(
    step: TrainStep,
    state: TrainState,
    frozen: Leaves,
    loader: Loader,
    schedule: optax.Schedule,
    *,
    theta0: Leaves,
    directory: epath.PathLike,
    mesh: Mesh,
    inputs: str,
    micro_batches: int = 1,
    checkpoint_every: int = 200,
    log_every: int = 10,
    description: str = "train",
    stop: StopSignal = never_stop,
    keep: Callable[[TrainState], Leaves] | None = None,
) -> Finished:
    """Trains a branch to the end of its data, from its newest checkpoint if it has one.

    Each iteration saves the state, then advances the data, then steps: a run that was killed ends with the same bits.

    Args:
        step: The compiled step.
        state: theta0's state; also gives shapes and shardings to a restored one.
        frozen: The other leaves of theta0.
        loader: The branch's data.
        schedule: Learning rate at a step.
        theta0: The branch's trainable leaves at its start, in arrays of their own (the step consumes the state's).
        directory: The branch's directory, for `checkpoints/` and `metrics.jsonl`.
        mesh: Devices of this branch.
        inputs: Fingerprint of all that the branch is made from.
        micro_batches: Parts that each batch is divided into.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of `metrics.jsonl`.
        description: Label of the progress bar.
        stop: Whether to save and stop before a step; the same answer on every process.
        keep: The last state -> its second moment of Adam, for the last checkpoint; None keeps none.

    Raises:
        ValueError: The directory holds a branch made from other inputs.
        UnfinishedError: It was preempted, and its state is saved.
        DivergedError: A loss, gradient or parameter is NaN or infinite; the last checkpoint before is kept.
    """
    checkpoints, iterator, state, at = _open(epath.Path(directory) / "checkpoints", loader, state, inputs)
    log = MetricsLog(epath.Path(directory) / "metrics.jsonl", at.step, log_every, theta0)
    began, start, tokens = time.monotonic(), at.step, at.tokens
    with _closing(checkpoints, description), bar(loader.steps, description, "step", initial=start) as progress:
        for index, stopping in ((index, stop(index)) for index in range(start, loader.steps)):
            if index > start and (stopping or index % checkpoint_every == 0):
                _save(checkpoints, log, state, Progress(index, tokens, _get_state(iterator), inputs))
            if stopping:
                raise UnfinishedError(f"{description}: preempted, and saved at step {index} of {loader.steps}")
            batch = place_batch(in_micro_batches(next(iterator), micro_batches), mesh, leading=1)
            state, metrics = step(state, frozen, batch, np.asarray(schedule(index), np.float32))
            tokens += int(loader.supervised[index])
            _show(progress, log.add(index, metrics, state.leaves, last=index == loader.steps - 1))
        if start < loader.steps:
            at = _save_final(checkpoints, state, Progress(loader.steps, tokens, _get_state(iterator), inputs), keep)
    return Finished(loader.steps, tokens, int(sum(loader.read)), at.fingerprint, time.monotonic() - began)


def _open(
    directory: epath.Path, loader: Loader, state: TrainState, inputs: str
) -> tuple[Checkpoints, Any, TrainState, Progress]:
    """Returns the branch's checkpoints, an iterator over its data, and the newest state with its progress, where both are."""
    checkpoints, iterator = Checkpoints(directory), loader.iterator()
    return checkpoints, iterator, *_resume(checkpoints, state, iterator, loader.steps, inputs)


def _show(progress: Any, values: Any) -> None:
    """Moves the progress bar on by a step, with its metrics."""
    progress.set_postfix(values, refresh=False)
    progress.update()


@contextmanager
def _closing(checkpoints: Checkpoints, description: str) -> Iterator[None]:
    """Closes the checkpoints; of a branch that diverges, says which it is and what is kept of it."""
    try:
        with closing(checkpoints):
            yield
    except DivergedError as error:
        kept = checkpoints.latest()
        state = "nothing is saved" if kept is None else f"the checkpoint of step {kept} is kept"
        problem = f"{description}: {error.problem}. Training has stopped, and {state}"
        raise DivergedError(problem, error.mend) from None


def _save(checkpoints: Checkpoints, log: MetricsLog, state: TrainState, progress: Progress) -> None:
    """Saves a state from which training continues; every checkpoint ends a line of the log."""
    log.write(progress.step, state.leaves)
    checkpoints.save(state, progress)


def _save_final(
    checkpoints: Checkpoints, state: TrainState, progress: Progress, keep: Callable[[TrainState], Leaves] | None
) -> Progress:
    """Saves the last state, with the fingerprint of its parameters."""
    final = progress._replace(fingerprint=tree.fingerprint(state.leaves))
    checkpoints.save(state, final, final=True, second_moment=None if keep is None else keep(state))
    return final


def in_micro_batches(batch: Batch, parts: int) -> Batch:
    """Divides leaves [rows, ...] to [parts, rows / parts, ...]; micro-batch i holds every parts-th row from i.

    Raises:
        ValueError: The parts do not divide the rows.

    Examples:
        >>> tokens = np.arange(4, dtype=np.int32)[:, None]
        >>> batch = Batch(tokens, tokens, np.ones((4, 1), np.float32), tokens, tokens)
        >>> in_micro_batches(batch, 2).tokens[..., 0].tolist()
        [[0, 2], [1, 3]]
    """
    rows = batch.tokens.shape[0]
    if rows % parts:
        raise ValueError(f"train.micro_batches = {parts} does not divide train.batch_size = {rows}")
    return jax.tree.map(lambda x: np.swapaxes(x.reshape(rows // parts, parts, *x.shape[1:]), 0, 1), batch)


def _resume(
    checkpoints: Checkpoints, state: TrainState, iterator: Any, steps: int, inputs: str
) -> tuple[TrainState, Progress]:
    """The newest state and its progress; `iterator` is moved to match."""
    if checkpoints.latest() is None:
        return state, Progress(0, 0, None, inputs)
    progress = checkpoints.progress()
    if progress.inputs != inputs:
        raise ValueError(
            f"{checkpoints.directory} holds a branch made from another theta0, data or configuration "
            f"(fingerprint {progress.inputs[:12]}, now {inputs[:12]}); use another workdir, or --overwrite to start it again"
        )
    if progress.step == steps:
        return state, progress
    iterator.set_state(progress.data)
    return checkpoints.restore(state), progress


def _get_state(iterator: Any) -> Any:
    """The iterator's state as JSON values."""
    state = iterator.get_state()
    return json.loads(state) if isinstance(state, bytes | str) else state
