"""Batches examples of similar lengths, one to a row: for calibration gradients and for evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from merit_jax.core.seeds import fold
from merit_jax.core.types import Batch, Dataset, DatasetSlice, Example, ImageReader
from merit_jax.data.packing import RowCapacity, fill_row, stack
from merit_jax.data.sampler import share_examples


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
        reader: Reads images, when a batch is taken; None for text.
        image_buckets: Image tokens of a row that has images; empty: as many as the row has tokens. With `buckets`, and 0 for
            text, the only shapes that come out.

    Yields:
        (index in `examples` of every row, -1 for padding; the batch), the shortest bucket first and in order inside it.

    Raises:
        ValueError: An example is longer than the largest bucket, or an image cannot be read.

    Examples:
        >>> examples = [Example(np.arange(n, dtype=np.int32), np.arange(n) > 0) for n in (5, 3, 2)]
        >>> batches = bucketed_batches(examples, buckets=(2, 8), batch_size=2)
        >>> [(indices.tolist(), batch.tokens.shape) for indices, batch in batches]
        [([1, 2], (2, 2)), ([0, -1], (2, 8))]
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
        space = RowCapacity(length, image_tokens, reader)
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


def calibration_examples(dataset: Dataset, n: int, seed: int, share: DatasetSlice | None = None) -> list[Example]:
    """Samples at most `n` training examples without replacement, by `seed` and the dataset's name.

    Args:
        dataset: The dataset.
        n: How many.
        seed: The run's seed.
        share: A slice of the dataset to which they, or one visit of each, must belong.
    """
    order = np.random.default_rng(fold(seed, "calibration", dataset.name)).permutation(len(dataset.train))
    if share is not None:
        order = order[np.isin(order, share_examples(dataset, share, seed))]
    return [dataset.train[i] for i in sorted(order[:n].tolist())]
