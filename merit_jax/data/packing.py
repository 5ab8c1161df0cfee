"""Packs examples into rows of fixed shape, as numpy arrays.

The shift to next-token targets is made per example, before packing: tokens = ids[:-1], targets = ids[1:],
weights = supervised[1:].
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from merit_jax.core.types import Batch, Example, ImageReader, PackedExample

Sizes = Sequence[Sequence[int]] | Int[np.ndarray, "n 2"]


class RowCapacity(NamedTuple):
    """The capacity of a row, which decides the shapes of its arrays.

    Attributes:
        tokens: Tokens of a row.
        image_tokens: The most of them that may stand for images; 0 makes a batch of text.
        reader: Reads the images; None for text.
    """

    tokens: int
    image_tokens: int = 0
    reader: ImageReader | None = None


def pack(sizes: Sizes, room: tuple[int, int], *, window: int = 32) -> list[tuple[int, ...]]:
    """Assigns examples to rows by first fit over a bounded number of open rows.

    Offline, over the whole epoch, and not while iterating as Grain's packer does: the number of rows is known before
    the first step, which the learning-rate schedule needs, and every row can be read at random, so that a run resumes
    from one global index whatever the number of hosts.

    Args:
        sizes: (tokens, image tokens) of each example, in the order of the epoch.
        room: (tokens, image tokens) of a row.
        window: Rows that stay open; when all are open and none has room, the fullest is closed.

    Returns:
        Rows of indices in the order in which they were opened; every index exactly once, in order inside a row.

    Raises:
        ValueError: An example does not fit a row, or has no token.

    Examples:
        >>> pack([(3, 0), (4, 0), (2, 0), (1, 0)], (5, 0))
        [(0, 2), (1, 3)]
    """
    rows: list[list[int]] = []
    free: dict[int, tuple[int, int]] = {}
    for index, (tokens, images) in enumerate(sizes):
        if not 0 < tokens <= room[0] or images > room[1]:
            raise ValueError(
                f"example {index} has {tokens} tokens to predict and {images} image tokens; a row takes 1 to {room[0]} and at "
                f"most {room[1]}"
            )
        row = next((row for row, (t, i) in free.items() if t >= tokens and i >= images), None)
        if row is None:
            if len(free) == window:
                del free[min(free, key=free.__getitem__)]
            row = len(rows)
            rows.append([])
            free[row] = room
        rows[row].append(index)
        free[row] = (free[row][0] - tokens, free[row][1] - images)
        if not free[row][0]:
            del free[row]
    return [tuple(row) for row in rows]


def fill_row(examples: Sequence[Example], space: RowCapacity, datasets: Sequence[int] | None = None) -> Batch:
    """Writes examples one after the other into a row; the rest is padding (segment 0, weight 0).

    Args:
        examples: Examples that fit the row together.
        space: The row's capacity.
        datasets: Place in the mixture of each example's dataset; None: the batch does not say.

    Returns:
        A batch without a batch axis: leaves [tokens].

    Examples:
        >>> a = Example(np.array([5, 6, 7], np.int32), np.array([False, False, True]))
        >>> b = Example(np.array([8, 9], np.int32), np.array([False, True]))
        >>> row = fill_row([a, b], RowCapacity(tokens=4))
        >>> row.tokens.tolist(), row.targets.tolist()
        ([5, 6, 8, 0], [6, 7, 9, 0])
        >>> row.weights.tolist(), row.segments.tolist()
        ([0.0, 1.0, 1.0, 0.0], [1, 1, 2, 0])
    """
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
    owners = None if datasets is None else np.array([*datasets, 0], np.int32)[segments - 1]
    return Batch(tokens, targets, weights, positions, segments, images, owners)


def stack(rows: Sequence[Batch]) -> Batch:
    """Stacks rows of one shape into a batch."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


class PackedRows:
    """Rows of packed examples, readable at random.

    Attributes:
        examples: The examples.
        rows: Indices into `examples` per row; an empty row is padding only.
        space: The capacity of a row.
        datasets: Place in the mixture of each example's dataset; None: the batches do not say.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        rows: Sequence[tuple[int, ...]],
        space: RowCapacity,
        datasets: Int[np.ndarray, " n"] | None = None,
    ):
        self.examples, self.rows, self.space, self.datasets = examples, rows, space, datasets

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        row, known = self.rows[index], self.datasets
        return fill_row(
            [self.examples[i] for i in row], self.space, None if known is None else known[list(row)].tolist()
        )
