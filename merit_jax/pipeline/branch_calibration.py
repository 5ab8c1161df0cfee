"""The calibration examples of a branch's own data, for the statistics that are taken at it."""

from collections.abc import Iterator

from merit_jax.core.types import Batch
from merit_jax.pipeline.calibration import calibration_batches
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run


def branch_calibration_batches(run: Run, index: int) -> Iterator[Batch]:
    """Yields the calibration examples of every dataset of a branch; of a slice of a dataset, the slice's only."""
    known = {dataset.name: dataset for dataset in run.datasets}
    for part in load_partition(run).branches[index].shares:
        yield from calibration_batches(run, known[part.dataset], part)
