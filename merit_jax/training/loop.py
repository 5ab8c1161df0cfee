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
from merit_jax.training.held_out import EarlyStopping
from merit_jax.training.metrics_log import MetricsLog
from merit_jax.training.preemption import StopSignal, never_stop
from merit_jax.training.recorder import Recorder, Recording
from merit_jax.training.step import StepMetrics, TrainStep


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
        steps: Optimizer steps that its parameters have behind them.
        tokens: Supervised tokens that they were trained on.
        all_tokens: Tokens that the forward pass read for them: prompts, responses and images, not padding.
        fingerprint: Of the parameters, by `tree.fingerprint`.
        seconds: Wall time of this call (a resumed part only counts itself).
        steps_taken: Optimizer steps in all; more than `steps` where early stopping has kept an earlier state.
        steps_planned: Optimizer steps on all of its data; more than `steps_taken` where early stopping has ended it.
    """

    steps: int
    tokens: int
    all_tokens: int
    fingerprint: str
    seconds: float
    steps_taken: int
    steps_planned: int


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
    recording: Recording = Recording(),  # noqa: B008 - immutable
) -> Finished:
    """Trains a branch to the end of its data, or of its patience, from its newest checkpoint if it has one.

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
        recording: Evaluation while it trains, and where its log is shown.

    Raises:
        ValueError: The directory holds a branch made from other inputs.
        UnfinishedError: It was preempted, and its state is saved.
        DivergedError: A loss, gradient or parameter is NaN or infinite; the last checkpoint before is kept.
    """
    checkpoints, iterator = Checkpoints(epath.Path(directory) / "checkpoints"), loader.iterator()
    state, at, early = _resume(checkpoints, state, iterator, inputs, recording.held_out.patience)
    began, metrics = time.monotonic(), epath.Path(directory) / "metrics.jsonl"
    log = MetricsLog(metrics, at.step, log_every, theta0, recording.datasets, recording.watcher)
    recorder = Recorder(log, checkpoints, early, recording, checkpoint_every)
    advance = _stepping(step, frozen, loader, schedule, mesh, micro_batches)
    with _closing(checkpoints, description), bar(loader.steps, description, "step", initial=at.step) as progress:
        if not at.fingerprint:
            state, at = _train(advance, recorder, state, at, iterator, loader.steps, stop, progress, description)
            at = _save_final(checkpoints, state, recorder, at._replace(data=_get_state(iterator)), keep)
    return _finished(at, loader, time.monotonic() - began)


Advance = Callable[[TrainState, Progress, Any], tuple[TrainState, Progress, StepMetrics, float]]
"""(state, its progress, iterator) -> the next state and its progress, the step's metrics and its learning rate."""


def _stepping(
    step: TrainStep, frozen: Leaves, loader: Loader, schedule: optax.Schedule, mesh: Mesh, micro_batches: int
) -> Advance:
    """Returns the function that advances the data and takes a step."""

    def advance(state: TrainState, at: Progress, iterator: Any) -> tuple[TrainState, Progress, StepMetrics, float]:
        batch = place_batch(in_micro_batches(next(iterator), micro_batches), mesh, leading=1)
        rate = np.asarray(schedule(at.step), np.float32)
        state, metrics = step(state, frozen, batch, rate)
        tokens = at.tokens + int(loader.supervised[at.step])
        return state, at._replace(step=at.step + 1, tokens=tokens), metrics, float(rate)

    return advance


def _train(
    advance: Advance,
    recorder: Recorder,
    state: TrainState,
    at: Progress,
    iterator: Any,
    steps: int,
    stop: StopSignal,
    progress: Any,
    description: str,
) -> tuple[TrainState, Progress]:
    """Trains to the end, and returns the last state.

    Each iteration records the state (log, evaluation, checkpoint), then advances the data, then steps: a run that was killed ends
    with the same bits. The state that it resumed from was recorded before.
    """
    start = at.step
    while True:
        last = at.step == steps
        stopping = not last and stop(at.step)
        new = at.step > start or not start
        if new and recorder.record(state, at, lambda: _get_state(iterator), stopping=stopping, last=last):
            return state, at
        if stopping:
            raise UnfinishedError(f"{description}: preempted, and saved at step {at.step} of {steps}")
        state, at, metrics, rate = advance(state, at, iterator)
        recorder.log.add(metrics, rate)
        progress.set_postfix(recorder.log.latest, refresh=False)
        progress.update()


def _finished(at: Progress, loader: Loader, seconds: float) -> Finished:
    steps, tokens = (at.best["step"], at.best["tokens"]) if at.best else (at.step, at.tokens)
    return Finished(steps, tokens, int(sum(loader.read[:steps])), at.fingerprint, seconds, at.step, loader.steps)


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


def _save_final(
    checkpoints: Checkpoints,
    state: TrainState,
    recorder: Recorder,
    progress: Progress,
    keep: Callable[[TrainState], Leaves] | None,
) -> Progress:
    """Saves the parameters that are kept, the best or the last ones, with their fingerprint."""
    leaves = recorder.kept(state)
    final = progress._replace(fingerprint=tree.fingerprint(leaves), best=recorder.early.record)
    second_moment = None if keep is None else keep(state)
    checkpoints.save(state._replace(leaves=leaves), final, final=True, second_moment=second_moment)
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
    checkpoints: Checkpoints, state: TrainState, iterator: Any, inputs: str, patience: int
) -> tuple[TrainState, Progress, EarlyStopping]:
    """The newest state, its progress and its best evaluation; `iterator` is moved to match."""
    if checkpoints.latest() is None:
        return state, Progress(0, 0, None, inputs), EarlyStopping(patience)
    progress = checkpoints.progress()
    if progress.inputs != inputs:
        raise ValueError(
            f"{checkpoints.directory} holds a branch made from another theta0, data or configuration "
            f"(fingerprint {progress.inputs[:12]}, now {inputs[:12]}); use another workdir, or --overwrite to start it again"
        )
    if progress.fingerprint:
        return state, progress, EarlyStopping(patience)
    iterator.set_state(progress.data)
    best = None if progress.best is None else checkpoints.restore_best(state.leaves)
    return checkpoints.restore(state), progress, EarlyStopping(patience, progress.best, best)


def _get_state(iterator: Any) -> Any:
    """The iterator's state as JSON values."""
    state = iterator.get_state()
    return json.loads(state) if isinstance(state, bytes | str) else state
