"""The examples of diagnostics, drawn as those of the gradients, by seed and dataset name."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from merit_jax.core.seeds import fold
from merit_jax.core.sharding import ROWS
from merit_jax.core.types import Batch, Dataset, Example
from merit_jax.data.bucketing import calibration_examples
from merit_jax.pipeline.calibration import batches_of
from merit_jax.pipeline.diagnostics.task import Counted, Tick
from merit_jax.pipeline.evaluators import batch_shapes
from merit_jax.pipeline.run import Run


class Sample:
    """Training examples of datasets, one to a row, on which a loss is taken.

    Args:
        run: The run.
        examples: Of each dataset at most.
        names: Of the datasets; None: all of the mixture.
    """

    def __init__(self, run: Run, examples: int, names: Sequence[str] | None = None):
        if examples < 1:
            raise ValueError(f"{examples} examples of each dataset; expected at least 1")
        self._run, self._limit = run, examples
        self._datasets = [d for d in run.datasets if names is None or d.name in names]

    @property
    def count(self) -> int:
        """Examples, all datasets together."""
        return sum(min(self._limit, len(dataset.train)) for dataset in self._datasets)

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything that decides the loss except the parameters, as JSON values."""
        run = self._run
        digests = run.digests([d.name for d in self._datasets])
        return {
            "theta0": run.theta0_fingerprint,
            "text": dict(run.text_inputs),
            "datasets": digests,
            "examples": self._limit,
            "trainable": list(run.config.train.trainable),
            "dtype": run.compute_dtype,
        }

    def batches(self, tick: Tick) -> "Placed":
        """Reads the batches once, into the host's memory."""
        run = self._run
        examples = [e for d in self._datasets for e in calibration_examples(d, self._limit, run.config.seed)]
        shapes = batch_shapes(run)._replace(place=lambda batch: batch)
        return Placed(run, Counted([batch for _, batch in shapes.batches(examples)], tick))


class Placed:
    """Host batches that are put on the devices one at a time; each iteration begins anew.

    Args:
        run: Whose devices.
        batches: The batches.
    """

    def __init__(self, run: Run, batches: Iterable[Batch]):
        self._run, self._batches = run, batches

    def __iter__(self) -> Iterator[Batch]:
        return map(self._run.place_batch, self._batches)


def blocks_of(run: Run, dataset: Dataset, examples: int, block: int) -> list[list[Example]]:
    """Splits a dataset's calibration examples, in a random order, into blocks of one size; the rest is left out."""
    pool = calibration_examples(dataset, examples, run.config.seed)
    order = np.random.default_rng(fold(run.config.seed, "blocks", dataset.name)).permutation(len(pool)).tolist()
    return [[pool[i] for i in order[start : start + block]] for start in range(0, len(pool) - block + 1, block)]


def block_batches(run: Run, examples: Sequence[Example], tick: Tick) -> Counted:
    """Returns the batches of one block for a gradient, no wider than the block where the devices allow."""
    cfg = run.config.gradients
    shards = int(np.prod([run.mesh.shape[axis] for axis in ROWS]))
    rows = -(-min(cfg.batch_size, len(examples)) // shards) * shards
    return Counted(batches_of(run, examples, rows), tick)
