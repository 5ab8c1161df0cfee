"""The calibration examples of a run as batches, for everything that differentiates at theta0 or at a branch."""

from collections.abc import Iterator, Sequence

from merit_jax.core.types import Batch, Dataset, DatasetSlice, Example
from merit_jax.data.bucketing import bucketed_batches, calibration_examples
from merit_jax.pipeline.run import Run


def example_digests(run: Run) -> dict[str, str]:
    """Returns the sha256 of the files of each dataset, for what takes each example once, whatever the dataset's weight."""
    return {dataset.name: dataset.report.digest for dataset in run.datasets}


def calibration_batches(run: Run, dataset: Dataset, part: DatasetSlice | None = None) -> Iterator[Batch]:
    """Yields the calibration examples of a dataset, or of a slice of it, in fixed shapes; images are read batch by batch."""
    return batches_of(run, calibration_examples(dataset, run.config.gradients.examples, run.config.seed, part))


def batches_of(run: Run, examples: Sequence[Example], batch_size: int = 0) -> Iterator[Batch]:
    """Yields examples in the shapes of `config.gradients`, `batch_size` (0: `gradients.batch_size`) at a time."""
    cfg = run.config.gradients
    batches = bucketed_batches(
        examples,
        buckets=cfg.buckets,
        batch_size=batch_size or cfg.batch_size,
        reader=run.reader,
        image_buckets=cfg.image_buckets,
    )
    return (batch for _, batch in batches)
