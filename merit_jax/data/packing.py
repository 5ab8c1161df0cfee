"""Which examples share a row."""

from collections.abc import Sequence


def pack(lengths: Sequence[int], row_length: int, *, window: int = 32) -> list[tuple[int, ...]]:
    """Deals examples into rows by first fit over a bounded number of open rows.

    Offline, over the whole epoch, and not while iterating as Grain's packer does: the number of rows is known before
    the first step, which the learning-rate schedule needs, and every row can be read at random, so that a run resumes
    from one global index whatever the number of hosts.

    Args:
        lengths: Length of each example in tokens, in the order of the epoch.
        row_length: Tokens per row.
        window: Rows that stay open; when all are open and none has room, the fullest is closed.

    Returns:
        Rows of indices in the order in which they were opened; every index exactly once, in order inside a row.

    Raises:
        ValueError: An example is longer than a row, or has no token.
    """
    rows: list[list[int]] = []
    room: dict[int, int] = {}
    for index, length in enumerate(lengths):
        if not 0 < length <= row_length:
            raise ValueError(f"example {index} has {length} tokens to predict; a row takes 1 to {row_length}")
        row = next((row for row, free in room.items() if free >= length), None)
        if row is None:
            if len(room) == window:
                del room[min(room, key=room.__getitem__)]
            row = len(rows)
            rows.append([])
            room[row] = row_length
        rows[row].append(index)
        room[row] -= length
        if not room[row]:
            del room[row]
    return [tuple(row) for row in rows]
