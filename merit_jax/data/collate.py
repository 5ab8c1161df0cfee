"""Places packed examples in the arrays of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from merit_jax.core.types import Batch, Example, ImageReader, PackedExample


class RowCapacity(NamedTuple):
    """What a row has room for, which decides the shapes of its arrays.

    Attributes:
        tokens: Tokens of a row.
        image_tokens: How many of them may stand for images; 0 makes a batch of text.
        reader: Reads the images; None for text.
    """

    tokens: int
    image_tokens: int = 0
    reader: ImageReader | None = None


def fill_row(examples: Sequence[Example], space: RowCapacity) -> Batch:
    """Lays examples one after the other in a row; the rest is padding (segment 0, weight 0)."""
    tokens, targets, positions, segments = np.zeros((4, space.tokens), np.int32)
    weights = np.zeros(space.tokens, np.float32)
    start, placed = 0, []
    for segment, example in enumerate(examples, start=1):
        length = len(example.tokens) - 1
        part = slice(start, start + length)
        tokens[part], targets[part] = example.tokens[:-1], example.tokens[1:]
        weights[part], positions[part], segments[part] = example.supervised[1:], np.arange(length), segment
        placed.append(PackedExample(start, example))
        start += length
    images = space.reader.row(placed, space.tokens, space.image_tokens) if space.reader and space.image_tokens else None
    return Batch(tokens, targets, weights, positions, segments, images)


def stack(rows: Sequence[Batch]) -> Batch:
    """Stacks rows of one shape into a batch."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
