"""Which examples share a row."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Sizes = Sequence[Sequence[int]] | Int[np.ndarray, "n 2"]


def pack(sizes: Sizes, room: tuple[int, int], *, window: int = 32) -> list[tuple[int, ...]]:
    """Deals examples into rows by first fit over a bounded number of open rows.

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
