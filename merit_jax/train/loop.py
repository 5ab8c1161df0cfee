"""Fine-tunes one branch from theta0, and carries on where a killed run stopped."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Float, Int64

from merit_jax import tree
from merit_jax.artifact import write_text
from merit_jax.progress import bar
from merit_jax.sharding import place_batch
from merit_jax.train.checkpoint import Checkpoints, Progress
from merit_jax.train.step import StepMetrics, TrainState, TrainStep
from merit_jax.types import Array, Batch, Leaves


@runtime_checkable
class Loader(Protocol):
    """Data of one branch: a known number of batches, of tokens in each, and an iterator whose state can be saved."""

    steps: int
    supervised: Sequence[int] | Int64[np.ndarray, " steps"]

    def iterator(self) -> Any:
        """An iterator over host batches, leaves [rows, length], with `get_state` and `set_state`.

        The rows that this process's devices have no part of need no content.
        """


class Finished(NamedTuple):
    """A trained branch.

    Attributes:
        steps: Optimizer steps taken.
        tokens: Supervised tokens trained on.
        seconds: Wall time of this call (a resumed part only counts itself).
    """

    steps: int
    tokens: int
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
) -> Finished:
    """Trains a branch to the end of its data, from its newest checkpoint if it has one.

    The order in every turn is: save the state one has, then advance the data, then step. A run that is killed at any moment
    and started again therefore ends with the same bits as one that was not.

    Args:
        step: The compiled step.
        state: theta0's state; also gives shapes and shardings to a restored one.
        frozen: The other leaves of theta0.
        loader: The branch's data.
        schedule: Learning rate at a step.
        theta0: Where the branch starts: its trainable leaves, in arrays of their own (the step consumes the state's).
        directory: The branch's directory, for `checkpoints/` and `metrics.jsonl`.
        mesh: Devices of this branch.
        inputs: Fingerprint of all that the branch is made from.
        micro_batches: Parts that each batch is cut into.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of `metrics.jsonl`.
        description: Label of the progress bar.

    Raises:
        ValueError: The directory holds a branch made from other inputs.
    """
    directory = epath.Path(directory)
    checkpoints = Checkpoints(directory / "checkpoints")
    iterator = loader.iterator()
    state, start, tokens = _resume(checkpoints, state, iterator, loader.steps, inputs)
    log = _MetricsLog(directory / "metrics.jsonl", start, log_every, theta0)
    began = time.monotonic()
    with bar(loader.steps, description, "step", initial=start) as progress:
        for index in range(start, loader.steps):
            if index > start and index % checkpoint_every == 0:
                checkpoints.save(state, Progress(index, tokens, _get_state(iterator), inputs))
            batch = next(iterator)
            placed = place_batch(in_micro_batches(batch, micro_batches), mesh, leading=1)
            state, metrics = step(state, frozen, placed, np.float32(schedule(index)))
            tokens += int(loader.supervised[index])
            log.add(index, metrics, state.leaves, last=index == loader.steps - 1)
            progress.set_postfix(log.latest, refresh=False)
            progress.update()
    if start < loader.steps or checkpoints.latest() is None:
        checkpoints.save(state, Progress(loader.steps, tokens, _get_state(iterator), inputs), final=True)
    checkpoints.close()
    return Finished(loader.steps, tokens, time.monotonic() - began)


def in_micro_batches(batch: Batch, parts: int) -> Batch:
    """Leaves [rows, ...] -> [parts, rows / parts, ...]; micro-batch i holds every parts-th row from i."""
    rows = batch.tokens.shape[0]
    if rows % parts:
        raise ValueError(f"train.micro_batches = {parts} does not divide train.batch_size = {rows}")
    return jax.tree.map(lambda x: np.swapaxes(x.reshape(rows // parts, parts, *x.shape[1:]), 0, 1), batch)


def _resume(
    checkpoints: Checkpoints, state: TrainState, iterator: Iterator, steps: int, inputs: str
) -> tuple[TrainState, int, int]:
    """The newest state, its step and its token count; `iterator` is moved to match."""
    if checkpoints.latest() is None:
        return state, 0, 0
    progress = checkpoints.progress()
    if progress.inputs != inputs:
        raise ValueError(
            f"{checkpoints.directory} holds a branch made from another theta0, data or configuration "
            f"(fingerprint {progress.inputs[:12]}, now {inputs[:12]}); use another workdir, or --overwrite to start it again"
        )
    if progress.step == steps:
        return state, steps, progress.tokens
    iterator.set_state(progress.data)
    return checkpoints.restore(state), progress.step, progress.tokens


def _get_state(iterator: Any) -> Any:
    """The iterator's state as JSON values."""
    state = iterator.get_state()
    return json.loads(state) if isinstance(state, bytes | str) else state


@jax.jit
def _distance(leaves: Leaves, theta0: Leaves) -> Float[Array, ""]:
    """‖θ − θ0‖₂."""
    return tree.norm(tree.axpy(-1.0, theta0, leaves))


class _MetricsLog:
    """Appends to `metrics.jsonl`; lines after the step that a run resumes from are dropped, for they come again."""

    def __init__(self, path: epath.Path, start: int, every: int, theta0: Leaves) -> None:
        self.latest: dict[str, float] = {}
        self._path, self._every, self._theta0 = path, every, theta0
        self._since = time.monotonic()
        self._pending: list[StepMetrics] = []
        lines = path.read_text().splitlines() if path.exists() else []
        self._lines = [line for line in lines if json.loads(line)["step"] <= start]

    def add(self, index: int, metrics: StepMetrics, leaves: Leaves, *, last: bool) -> None:
        """Takes one step's metrics, and writes a line every few steps, with the distance that the step has got to."""
        self._pending.append(metrics)
        if not last and (index + 1) % self._every:
            return
        host = jax.device_get(self._pending)
        now = time.monotonic()
        tokens = float(sum(m.tokens for m in host))
        self.latest = {
            "step": index + 1,
            "loss": round(float(sum(m.nll for m in host)) / max(tokens, 1), 6),
            "gradient_norm": round(float(host[-1].gradient_norm), 6),
            "displacement": round(float(_distance(leaves, self._theta0)), 6),
            "tokens": int(tokens),
            "tokens_per_second": round(tokens / max(now - self._since, 1e-9), 2),
        }
        self._pending, self._since = [], now
        self._lines.append(json.dumps(self.latest))
        if jax.process_index() == 0:
            write_text(self._path, "\n".join(self._lines) + "\n")
