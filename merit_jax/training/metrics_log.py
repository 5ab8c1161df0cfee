"""Log of a branch: `metrics.jsonl`, with a JSON object on each line."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.sharding import to_host
from merit_jax.core.types import Array, Leaves
from merit_jax.training.divergence import Loss, check_parameters, last_finite
from merit_jax.training.held_out import HeldOutLoss
from merit_jax.training.step import DatasetSums, StepMetrics
from merit_jax.workdir.artifacts import write_text
from merit_jax.workdir.paths import is_there


def read_metrics(path: epath.Path, *, tolerant: bool = False) -> list[dict[str, Any]]:
    """Reads the lines of a log, oldest first; none if there is no file. A torn last line, which has no end, is left out.

    Args:
        path: The log.
        tolerant: Whether damaged lines are left out too.

    Raises:
        ValueError: A line is damaged.
    """
    text = path.read_bytes().decode(errors="replace") if is_there(path) else ""
    found = []
    for line in text.splitlines(keepends=True):
        try:
            found.append(_entry(line, path))
        except ValueError:
            if not tolerant and line.endswith("\n"):
                raise
    return found


def _entry(line: str, path: epath.Path) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        return {**entry, "step": int(entry["step"])}
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path} has a damaged line ({line!r:.60}); delete the line, or the file") from None


Line = Mapping[str, Any]
"""A line of the log: numbers by name, or by name and dataset."""


@runtime_checkable
class Watcher(Protocol):
    """Shows the log elsewhere while a branch trains; it never fails. Only process 0 has one."""

    def begin(self, lines: Sequence[Line]) -> None:
        """Takes the lines of the steps before the one that training resumes from."""

    def add(self, line: Line) -> None:
        """Takes a new line."""


class MetricsLog:
    """An append-only log; lines after the step that a run resumes from are dropped, for they come again.

    Args:
        path: The log.
        start: The step that the run resumes from.
        every: Steps between lines.
        theta0: The branch's trainable leaves at its start.
        datasets: Names of the mixture's datasets, in order.
        watcher: Shows the lines elsewhere.
    """

    def __init__(
        self,
        path: epath.Path,
        start: int,
        every: int,
        theta0: Leaves,
        datasets: Sequence[str] = (),
        watcher: Watcher | None = None,
    ) -> None:
        self.latest: dict[str, int | float] = {}
        self._path, self._every, self._theta0, self._datasets = path, every, theta0, datasets
        self._watcher, self._since, self._rate = watcher, time.monotonic(), 0.0
        self._pending: list[StepMetrics] = []
        self._by_dataset: DatasetSums | None = None
        self._entries = [entry for entry in read_metrics(path) if start and entry["step"] <= start]
        known = [Loss(entry["step"], entry["loss"]) for entry in self._entries if "loss" in entry]
        self._last = known[-1] if known else None
        if watcher is not None:
            watcher.begin(self._entries)

    def due(self, step: int) -> bool:
        """Returns whether a line ends after so many steps, whatever happens else."""
        return step % self._every == 0

    def add(self, metrics: StepMetrics, rate: float = 0.0) -> None:
        """Takes one step's metrics and learning rate. The datasets' sums are added up where they are, on the devices."""
        own = metrics.by_dataset
        self._pending.append(metrics._replace(by_dataset=None))
        self._by_dataset = own if self._by_dataset is None else _added(self._by_dataset, own)
        self._rate = rate

    def write(
        self, step: int, leaves: Leaves, measure: Callable[[Leaves], HeldOutLoss] | None = None
    ) -> HeldOutLoss | None:
        """Writes a line of the steps since the last one, up to `step`, with the distance from theta0.

        Lines that end where a checkpoint does hold each step once, also in a run that was stopped and started again.

        Args:
            step: Steps taken.
            leaves: The leaves after them.
            measure: Computes their loss on held-out examples, for the same line; None: there is none.

        Returns:
            That loss.

        Raises:
            DivergedError: A loss, gradient or parameter of these steps is NaN or infinite.
        """
        line = self._training(step, leaves) if self._pending else {}
        self.latest = {"step": step, **line} if line else self.latest
        if by_dataset := self._of_datasets():
            line |= by_dataset
        found = None if measure is None else measure(leaves)
        if found is not None:
            own = {name: round(loss, 6) for name, loss in found.by_dataset.items()}
            line |= {"held_out_loss": round(found.loss, 6), "held_out_by_dataset": own}
        if line:
            self._append({"step": step, **line})
        self._since = time.monotonic()
        return found

    def _training(self, step: int, leaves: Leaves) -> dict[str, Any]:
        host = jax.device_get(self._pending)
        self._last = last_finite(host, step - len(host) + 1, self._last)
        displacement = float(_distance(leaves, self._theta0))
        check_parameters(displacement, step, leaves, self._theta0, self._last)
        seconds = time.monotonic() - self._since
        tokens, divisor = (float(sum(getattr(m, name) for m in host)) for name in ("tokens", "divisor"))
        self._pending = []
        return {
            "loss": round(float(sum(m.nll for m in host)) / max(divisor, 1), 6),
            "gradient_norm": round(float(host[-1].gradient_norm), 6),
            "displacement": round(displacement, 6),
            "learning_rate": float(f"{self._rate:.7g}"),
            "tokens": int(tokens),
            "tokens_per_second": round(tokens / max(seconds, 1e-9), 2),
        }

    def _of_datasets(self) -> dict[str, dict[str, float]]:
        """Returns the mean loss of each dataset that these steps have trained on, and the tokens (or examples) behind it."""
        if self._by_dataset is None:
            return {}
        sums, self._by_dataset = (to_host(part).tolist() for part in self._by_dataset), None
        rows = [(name, *row) for name, *row in zip(self._datasets, *sums, strict=True) if row[1]]
        return {
            "loss_by_dataset": {name: round(nll / divisor, 6) for name, nll, divisor in rows},
            "count_by_dataset": {name: round(divisor) for name, _, divisor in rows},
        }

    def _append(self, line: dict[str, Any]) -> None:
        self._entries.append(line)
        if jax.process_index() == 0:
            write_text(self._path, "".join(json.dumps(entry) + "\n" for entry in self._entries))
            if self._watcher is not None:
                self._watcher.add(line)


_added = jax.jit(lambda total, part: jax.tree.map(jnp.add, total, part))


@jax.jit
def _distance(leaves: Leaves, theta0: Leaves) -> Float[Array, ""]:
    """‖θ − θ0‖₂."""
    return tree.norm(tree.axpy(-1.0, theta0, leaves))
