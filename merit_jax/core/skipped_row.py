"""A row of a dataset file that cannot be used, and was left out on request."""

from typing import NamedTuple


class SkippedRow(NamedTuple):
    """A row of a file that cannot be used.

    Attributes:
        where: "FILE:LINE" or "FILE[INDEX]".
        reason: What is wrong with it.
        placed: Whether it says which dataset it is of; a damaged line of a file with `group_by` does not.
    """

    where: str
    reason: str
    placed: bool = True
