"""Examples -> batches of fixed shape, as numpy arrays.

The shift to next-token targets is made per example, before packing: tokens = ids[:-1], targets = ids[1:],
weights = supervised[1:].
"""

from collections.abc import Iterator, Sequence

import grain
import numpy as np
from jaxtyping import Int64

from merit_jax.data.epochs import BranchExamples, epoch_orders
from merit_jax.data.packing import pack
from merit_jax.seeds import fold
from merit_jax.types import Batch, Branch, Dataset, Example


class Rows(Sequence):
    """Rows of packed examples, readable at random.

    Attributes:
        examples: The examples.
        rows: Indices into `examples` per row; an empty row is padding only.
        row_length: Tokens per row.
    """

    def __init__(self, examples: Sequence[Example], rows: Sequence[tuple[int, ...]], row_length: int):
        self.examples, self.rows, self.row_length = examples, rows, row_length

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return fill_row([self.examples[i] for i in self.rows[index]], self.row_length)


class TrainingBatches:
    """The batches of one branch's whole run, in order.

    Attributes:
        steps: Number of batches.
        tokens: Supervised tokens of all batches: N_k of the merge weights (MERIT Alg. 1, step 5).
        examples: Example visits of all batches.
    """

    def __init__(self, rows: Rows, batch_size: int, tokens: int, examples: int):
        self.steps, self.tokens, self.examples = len(rows) // batch_size, tokens, examples
        self._rows, self._batch_size = rows, batch_size

    def iterator(self) -> grain.DatasetIterator:
        """Returns a fresh Grain iterator of `Batch`es; `get_state` and `set_state` resume it exactly."""
        batches = grain.MapDataset.source(self._rows).batch(self._batch_size, batch_fn=stack)
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def training_batches(
    datasets: Sequence[Dataset],
    branch: Branch,
    *,
    epochs: int | float,
    row_length: int,
    batch_size: int,
    seed: int,
    packing: bool = True,
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

    Returns:
        The batches, their number and their exact count of supervised tokens.

    Raises:
        ValueError: A share names an unknown dataset, an example does not fit a row, or nothing is left to train on.
    """
    examples = BranchExamples(datasets, branch, seed)
    examples.check_lengths(row_length)
    rows: list[tuple[int, ...]] = []
    orders = epoch_orders(len(examples), epochs, branch.seed)
    for order in orders:
        lengths = (examples.lengths[order] - 1).tolist()
        packed = pack(lengths if packing else [row_length] * len(lengths), row_length)
        rows += [tuple(order[list(row)].tolist()) for row in packed]
    if not rows:
        names = [share.dataset for share in branch.shares]
        raise ValueError(
            f"nothing to train on: {epochs} epochs of {len(examples)} examples of {names}; give more of either"
        )
    rows += [()] * (-len(rows) % batch_size)
    visits = np.concatenate(orders)
    tokens = int(examples.supervised_counts[visits].sum())
    return TrainingBatches(Rows(examples, rows, row_length), batch_size, tokens, len(visits))


def bucketed_batches(
    examples: Sequence[Example], *, buckets: Sequence[int] = (64, 128, 256, 512), batch_size: int
) -> Iterator[tuple[Int64[np.ndarray, " b"], Batch]]:
    """Batches of one example to a row, each row as long as the smallest bucket that its example fits.

    Args:
        examples: Examples, in any order.
        buckets: Row lengths in tokens: the only shapes that come out.
        batch_size: Rows per batch; the last batch of a bucket is filled up with rows of padding.

    Yields:
        (index in `examples` of every row, -1 for padding; the batch), the shortest bucket first and in order inside it.

    Raises:
        ValueError: An example is longer than the largest bucket.
    """
    sizes = sorted(buckets)
    lengths = np.array([len(example.tokens) - 1 for example in examples], np.int64)
    if len(lengths) and lengths.max() > sizes[-1]:
        raise ValueError(
            f"example {lengths.argmax()} has {lengths.max()} tokens to predict, the largest bucket takes {sizes[-1]}; "
            "add a larger bucket or lower the maximum length"
        )
    bucket_of = np.searchsorted(sizes, lengths)
    for bucket, size in enumerate(sizes):
        members = np.flatnonzero(bucket_of == bucket)
        for start in range(0, len(members), batch_size):
            indices = np.full(batch_size, -1, np.int64)
            part = members[start : start + batch_size]
            indices[: len(part)] = part
            yield indices, stack([fill_row([examples[i]] if i >= 0 else [], size) for i in indices.tolist()])


def calibration_examples(dataset: Dataset, n: int, seed: int) -> list[Example]:
    """Samples at most `n` training examples without replacement, by `seed` and the dataset's name."""
    order = np.random.default_rng(fold(seed, "calibration", dataset.name)).permutation(len(dataset.train))
    return [dataset.train[i] for i in sorted(order[:n].tolist())]


def fill_row(examples: Sequence[Example], row_length: int) -> Batch:
    """Lays examples one after the other in a row of `row_length` tokens; the rest is padding (segment 0, weight 0)."""
    tokens, targets, positions, segments = np.zeros((4, row_length), np.int32)
    weights = np.zeros(row_length, np.float32)
    start = 0
    for segment, example in enumerate(examples, start=1):
        length = len(example.tokens) - 1
        part = slice(start, start + length)
        tokens[part], targets[part] = example.tokens[:-1], example.tokens[1:]
        weights[part], positions[part], segments[part] = example.supervised[1:], np.arange(length), segment
        start += length
    return Batch(tokens, targets, weights, positions, segments)


def stack(rows: Sequence[Batch]) -> Batch:
    """Stacks rows of one length into a batch."""
    return Batch(*(np.stack(leaves) for leaves in zip(*(row[:5] for row in rows), strict=True)))
