"""Examples -> batches of fixed shape, as numpy arrays.

The shift to next-token targets is made per example, before packing: tokens = ids[:-1], targets = ids[1:],
weights = supervised[1:].
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import grain
import jax
import numpy as np
from jaxtyping import Int64

from merit_jax.data.epochs import BranchExamples, epoch_orders, share_indices
from merit_jax.data.packing import pack
from merit_jax.seeds import fold
from merit_jax.types import Batch, Branch, Dataset, Example, ImageReader, Placed, Share

IMAGE_THREADS = 4
"""Grain threads that read images ahead of the training loop."""


class Space(NamedTuple):
    """What a row has room for, which decides the shapes of its arrays.

    Attributes:
        tokens: Tokens of a row.
        image_tokens: How many of them may stand for images; 0 makes a batch of text.
        reader: Reads the images; None for text.
    """

    tokens: int
    image_tokens: int = 0
    reader: ImageReader | None = None


class Rows(Sequence):
    """Rows of packed examples, readable at random.

    Attributes:
        examples: The examples.
        rows: Indices into `examples` per row; an empty row is padding only.
        space: What a row has room for.
    """

    def __init__(self, examples: Sequence[Example], rows: Sequence[tuple[int, ...]], space: Space):
        self.examples, self.rows, self.space = examples, rows, space

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return fill_row([self.examples[i] for i in self.rows[index]], self.space)


class TrainingBatches:
    """The batches of one branch's whole run, in order.

    Attributes:
        steps: Number of batches.
        supervised: Supervised tokens of each batch, all rows counted.
        tokens: Their sum: N_k of the merge weights (MERIT Alg. 1, step 5).
        examples: Example visits of all batches.
    """

    def __init__(self, rows: Rows, supervised: Int64[np.ndarray, " steps"], examples: int):
        self.steps, self.supervised = len(supervised), supervised
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
        own: Places in a batch whose rows this process needs; the examples of the others are not read, and they come as padding.
            None: all.

    Returns:
        The batches, their number and their exact count of supervised tokens.

    Raises:
        ValueError: A share names an unknown dataset, an example does not fit a row, or nothing is left to train on.
    """
    examples = BranchExamples(datasets, branch, seed)
    images = examples.image_counts(reader)
    space = Space(row_length, (image_tokens or row_length) if images.any() else 0, reader)
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
    counts = np.array([examples.supervised_counts[list(row)].sum() for row in rows], np.int64)
    mine = [row if own is None or place % batch_size in own else () for place, row in enumerate(rows)]
    return TrainingBatches(Rows(examples, mine, space), counts.reshape(-1, batch_size).sum(axis=1), len(visits))


def bucketed_batches(
    examples: Sequence[Example],
    *,
    buckets: Sequence[int] = (64, 128, 256, 512),
    batch_size: int,
    reader: ImageReader | None = None,
    image_buckets: Sequence[int] = (),
) -> Iterator[tuple[Int64[np.ndarray, " b"], Batch]]:
    """Batches of one example to a row, each row as long as the smallest buckets that its example fits.

    Args:
        examples: Examples, in any order.
        buckets: Row lengths in tokens.
        batch_size: Rows per batch; the last batch of a bucket is filled up with rows of padding.
        reader: Reads images, as a batch is asked for; None for text.
        image_buckets: Image tokens of a row that has images; empty: as many as the row has tokens. With `buckets`, and 0 for
            text, the only shapes that come out.

    Yields:
        (index in `examples` of every row, -1 for padding; the batch), the shortest bucket first and in order inside it.

    Raises:
        ValueError: An example is longer than the largest bucket, or an image cannot be read.
    """
    lengths = np.array([len(example.tokens) - 1 for example in examples], np.int64)
    images = np.array([reader.count(e.tokens[:-1]) if reader and e.images else 0 for e in examples], np.int64)
    rows = _smallest(buckets, lengths, "tokens to predict", "lower the maximum length")
    if image_buckets:
        images = _smallest((0, *image_buckets), images, "image tokens", "lower max_pixels in preprocessor_config.json")
    else:
        images = np.where(images, rows, 0)
    for length, image_tokens in sorted(set(zip(rows.tolist(), images.tolist(), strict=True))):
        members = np.flatnonzero((rows == length) & (images == image_tokens))
        space = Space(length, image_tokens, reader)
        for start in range(0, len(members), batch_size):
            indices = np.full(batch_size, -1, np.int64)
            part = members[start : start + batch_size]
            indices[: len(part)] = part
            yield indices, stack([fill_row([examples[i]] if i >= 0 else [], space) for i in indices.tolist()])


def _smallest(
    buckets: Sequence[int], sizes: Int64[np.ndarray, " n"], what: str, remedy: str
) -> Int64[np.ndarray, " n"]:
    """The smallest bucket that each size fits."""
    known = np.array(sorted(buckets), np.int64)
    if len(sizes) and sizes.max() > known[-1]:
        raise ValueError(
            f"example {sizes.argmax()} has {sizes.max()} {what}, the largest bucket takes {known[-1]}; add a larger bucket or "
            f"{remedy}"
        )
    return known[np.searchsorted(known, sizes)]


def calibration_examples(dataset: Dataset, n: int, seed: int, share: Share | None = None) -> list[Example]:
    """Samples at most `n` training examples without replacement, by `seed` and the dataset's name.

    Args:
        dataset: The dataset.
        n: How many.
        seed: The run's seed.
        share: A slice of the dataset to which they must belong.
    """
    order = np.random.default_rng(fold(seed, "calibration", dataset.name)).permutation(len(dataset.train))
    if share is not None:
        order = order[np.isin(order, share_indices(len(dataset.train), share, seed))]
    return [dataset.train[i] for i in sorted(order[:n].tolist())]


def fill_row(examples: Sequence[Example], space: Space) -> Batch:
    """Lays examples one after the other in a row; the rest is padding (segment 0, weight 0)."""
    tokens, targets, positions, segments = np.zeros((4, space.tokens), np.int32)
    weights = np.zeros(space.tokens, np.float32)
    start, placed = 0, []
    for segment, example in enumerate(examples, start=1):
        length = len(example.tokens) - 1
        part = slice(start, start + length)
        tokens[part], targets[part] = example.tokens[:-1], example.tokens[1:]
        weights[part], positions[part], segments[part] = example.supervised[1:], np.arange(length), segment
        placed.append(Placed(start, example))
        start += length
    images = space.reader.row(placed, space.tokens, space.image_tokens) if space.reader and space.image_tokens else None
    return Batch(tokens, targets, weights, positions, segments, images)


def stack(rows: Sequence[Batch]) -> Batch:
    """Stacks rows of one shape into a batch."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
