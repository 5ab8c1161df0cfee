"""Log of a branch: `metrics.jsonl`, with a JSON object on each line."""

import json
import time
from typing import Any

import jax
from etils import epath
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.types import Array, Leaves
from merit_jax.training.divergence import Loss, check_parameters, last_finite
from merit_jax.training.step import StepMetrics
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


class MetricsLog:
    """An append-only log; lines after the step that a run resumes from are dropped, for they come again.

    Args:
        path: The log.
        start: The step that the run resumes from.
        every: Steps between lines.
        theta0: The branch's trainable leaves at its start.
    """

    def __init__(self, path: epath.Path, start: int, every: int, theta0: Leaves) -> None:
        self.latest: dict[str, int | float] = {}
        self._path, self._every, self._theta0 = path, every, theta0
        self._since = time.monotonic()
        self._pending: list[StepMetrics] = []
        self._entries = [entry for entry in read_metrics(path) if entry["step"] <= start]
        self._last = Loss(self._entries[-1]["step"], self._entries[-1]["loss"]) if self._entries else None

    def add(self, index: int, metrics: StepMetrics, leaves: Leaves, *, last: bool) -> dict[str, int | float]:
        """Takes one step's metrics, writes a line every few steps, and returns the newest line."""
        self._pending.append(metrics)
        if last or (index + 1) % self._every == 0:
            self.write(index + 1, leaves)
        return self.latest

    def write(self, step: int, leaves: Leaves) -> None:
        """Writes a line of the steps since the last one, up to `step`, with the distance from theta0.

        Lines that end where a checkpoint does hold each step once, also in a run that was stopped and started again.

        Raises:
            DivergedError: A loss, gradient or parameter of these steps is NaN or infinite.
        """
        if not self._pending:
            return
        host = jax.device_get(self._pending)
        self._last = last_finite(host, step - len(host) + 1, self._last)
        displacement = float(_distance(leaves, self._theta0))
        check_parameters(displacement, step, leaves, self._theta0, self._last)
        now = time.monotonic()
        tokens, divisor = (float(sum(getattr(m, name) for m in host)) for name in ("tokens", "divisor"))
        self.latest = {
            "step": step,
            "loss": round(float(sum(m.nll for m in host)) / max(divisor, 1), 6),
            "gradient_norm": round(float(host[-1].gradient_norm), 6),
            "displacement": round(displacement, 6),
            "tokens": int(tokens),
            "tokens_per_second": round(tokens / max(now - self._since, 1e-9), 2),
        }
        self._pending, self._since = [], now
        self._entries.append(self.latest)
        if jax.process_index() == 0:
            write_text(self._path, "".join(json.dumps(entry) + "\n" for entry in self._entries))


@jax.jit
def _distance(leaves: Leaves, theta0: Leaves) -> Float[Array, ""]:
    """‖θ − θ0‖₂."""
    return tree.norm(tree.axpy(-1.0, theta0, leaves))
