"""Defines the shapes of the batches in which a model is evaluated."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from merit_jax.core.types import Batch, Example, ImageReader
from merit_jax.data.bucketing import bucketed_batches


def doubling_buckets(longest: int) -> tuple[int, ...]:
    """Returns padded lengths: powers of two from 64 to at least `longest`.

    Examples:
        >>> doubling_buckets(200)
        (64, 128, 256)
    """
    return tuple(2**k for k in range(6, max(6, (longest - 1).bit_length()) + 1))


class BatchShapes(NamedTuple):
    """The shapes and the placement of evaluation batches.

    Attributes:
        buckets: Padded lengths in tokens.
        batch_size: Examples per forward pass.
        place: Puts a host batch on the devices.
        reader: Reads images; None for text.
        image_buckets: Padded numbers of image tokens; empty: as many as the row has tokens.
    """

    buckets: tuple[int, ...]
    batch_size: int
    place: Callable[[Batch], Batch] = lambda batch: batch
    reader: ImageReader | None = None
    image_buckets: tuple[int, ...] = ()

    def batches(self, examples: Sequence[Example]) -> Iterator[tuple[Int64[np.ndarray, " b"], Batch]]:
        """Yields (index in `examples` of every row, -1 for padding; the batch on the devices), the shortest bucket first."""
        batches = bucketed_batches(
            examples,
            buckets=self.buckets,
            batch_size=self.batch_size,
            reader=self.reader,
            image_buckets=self.image_buckets,
        )
        for indices, batch in batches:
            yield indices, self.place(batch)
