"""One diagnostic of a run as a task with a known cost."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from merit_jax.core.sharding import to_host
from merit_jax.core.types import Batch

Tick = Callable[[int], Any]
"""Called with the number of examples that have just been processed."""


class NotPossible(ValueError):  # noqa: N818
    """The run lacks something that the diagnostic needs; the message says which command makes it."""


class Work(NamedTuple):
    """Passes over examples.

    Attributes:
        passes: Number of passes.
        unit: What each of them is.
        examples: Processed in each.
    """

    passes: int
    unit: str
    examples: int

    def __str__(self) -> str:
        each = " each" if self.passes > 1 else ""
        return f"{self.passes:,} {self.unit} over {self.examples:,} examples{each}"


class DiagnosticTask(NamedTuple):
    """One diagnostic of one run.

    Attributes:
        inputs: All that decides its result, as JSON values.
        work: Its cost.
        measure: Computes the result.
    """

    inputs: dict[str, Any]
    work: tuple[Work, ...]
    measure: Callable[[Tick], NamedTuple]

    @property
    def cost(self) -> str:
        """The cost in words."""
        return ", ".join(map(str, self.work)) or "no loss evaluations"

    @property
    def examples(self) -> int:
        """Examples processed, in all passes together."""
        return sum(work.passes * work.examples for work in self.work)


class Counted:
    """Batches that count the examples processed; each iteration begins anew.

    Args:
        batches: The batches.
        tick: Called with the examples of each batch.
    """

    def __init__(self, batches: Iterable[Batch], tick: Tick):
        self._batches, self._tick = batches, tick

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield batch
            self._tick(int((np.asarray(batch.segments) > 0).any(axis=-1).sum()))


def as_json(value: Any) -> Any:
    """Converts NamedTuples and arrays to JSON values; null for what is not finite."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: as_json(part) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    if hasattr(value, "tolist"):
        return as_json(to_host(value).tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value
