"""Plans the training batches of one branch: which examples share a row, and which rows a batch, in order."""

from collections.abc import Collection, Sequence

import grain
import numpy as np
from jaxtyping import Int64

from merit_jax.core.types import Branch, Dataset, ImageReader
from merit_jax.data.packing import PackedRows, RowCapacity, pack, stack
from merit_jax.data.sampler import BranchExamples, epoch_orders

IMAGE_THREADS = 4
"""Grain threads that read images ahead of the training loop."""


class TrainingBatches:
    """The batches of one branch's whole run, in order.

    Attributes:
        steps: Number of batches.
        supervised: Supervised tokens of each batch, all rows counted.
        read: Tokens of each batch that the forward pass reads, all rows counted: prompts, responses and images, not padding.
        tokens: The supervised ones in all: N_k of the merge weights (MERIT Alg. 1, step 5).
        examples: Example visits of all batches.
    """

    def __init__(
        self,
        rows: PackedRows,
        supervised: Int64[np.ndarray, " steps"],
        read: Int64[np.ndarray, " steps"],
        examples: int,
    ):
        self.steps, self.supervised, self.read = len(supervised), supervised, read
        self.tokens, self.examples = int(supervised.sum()), examples
        self._rows, self._batch_size = rows, len(rows) // len(supervised)

    def iterator(self) -> grain.DatasetIterator:
        """Returns a fresh Grain iterator of `Batch`es; `get_state` and `set_state` resume it exactly."""
        batches = grain.MapDataset.source(self._rows).batch(self._batch_size, batch_fn=stack)
        threads = 1 if self._rows.space.reader is None else IMAGE_THREADS
        return iter(
            batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads + 2))
        )


def training_batches(
    datasets: Sequence[Dataset],
    branch: Branch,
    *,
    epochs: int | float,
    row_length: int,
    batch_size: int,
    seed: int,
    packing: bool = True,
    reader: ImageReader | None = None,
    image_tokens: int = 0,
    own: Collection[int] | None = None,
) -> TrainingBatches:
    """Plans a branch's run: every epoch visits each example of its shares exactly once, in an order of its own.

    Args:
        datasets: The mixture.
        branch: Its shares, and the seed of its data order.
        epochs: Passes over the shares; 0.5 is the first half of the examples of one epoch's order.
        row_length: Tokens per row.
        batch_size: Rows per batch; the last batch is filled up with rows of padding (weight 0).
        seed: The run's seed; slices of datasets are folded from it and the dataset's name, the same in every branch.
        packing: Several examples to a row; else one.
        reader: Reads images, in Grain's worker threads; None for text.
        image_tokens: Image tokens per row; 0: as many as the row has tokens.
        own: Places in a batch whose rows this process needs; the other rows are padding, and their examples are not read.
            None: all.

    Returns:
        The batches, their number and their exact counts of tokens.

    Raises:
        ValueError: A share names an unknown dataset, an example does not fit a row, or nothing is left to train on.
    """
    examples = BranchExamples(datasets, branch, seed)
    images = examples.image_counts(reader)
    space = RowCapacity(row_length, (image_tokens or row_length) if images.any() else 0, reader)
    examples.check(images, row_length, space.image_tokens)
    rows: list[tuple[int, ...]] = []
    orders = epoch_orders(len(examples), epochs, branch.seed)
    for order in orders:
        tokens = examples.lengths[order] - 1 if packing else np.full(len(order), row_length)
        packed = pack(np.stack([tokens, images[order]], axis=1).tolist(), (row_length, space.image_tokens))
        rows += [tuple(order[list(row)].tolist()) for row in packed]
    if not rows:
        names = [share.dataset for share in branch.shares]
        raise ValueError(
            f"nothing to train on: {epochs} epochs of {len(examples)} examples of {names}; give more of either"
        )
    rows += [()] * (-len(rows) % batch_size)
    visits = np.concatenate(orders)
    supervised, read = (
        np.array([counts[list(row)].sum() for row in rows], np.int64).reshape(-1, batch_size).sum(axis=1)
        for counts in (examples.supervised_counts, examples.lengths - 1)
    )
    mine = [row if own is None or place % batch_size in own else () for place, row in enumerate(rows)]
    return TrainingBatches(PackedRows(examples, mine, space, examples.datasets), supervised, read, len(visits))
