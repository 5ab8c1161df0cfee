"""Rows of dataset files, and the error of a bad one: where it is, apart from what is wrong with it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row]]
OnError = Callable[[ValueError], object]
"""Takes the error of a bad record: `fail` raises it; `list.append` collects it, and reading goes on with the next record."""

LONGEST_REASON = 600
"""Characters of a reason; the middle of a longer one, which quotes the data, is left out."""


class RowError(ValueError):
    """A record that cannot be used.

    Attributes:
        where: "FILE:LINE", "FILE[INDEX]" or "FILE".
        reason: What is wrong, and how to mend it.
    """

    def __init__(self, where: str, reason: str):
        half = LONGEST_REASON // 2
        self.where = where
        self.reason = f"{reason[:half]} ... {reason[-half:]}" if len(reason) > LONGEST_REASON else reason
        super().__init__(f"{self.where}: {self.reason}")

    def __reduce__(self):
        return RowError, (self.where, self.reason)

    @classmethod
    def of(cls, error: ValueError, where: str, hint: str = "") -> "RowError":
        """Returns the error of a record that starts with its place, or does not yet, as an error of this class.

        Args:
            error: The error.
            where: The place.
            hint: A sentence that is added to the reason.
        """
        return cls(where, str(error).removeprefix(f"{where}: ") + (f"; {hint}" if hint else ""))


class FileError(RowError):
    """A file that cannot be read, or not to its end, or not as its entry says: leaving a row out does not mend it."""

    def __reduce__(self):
        return FileError, (self.where, self.reason)


def fail(error: ValueError) -> NoReturn:
    """Raises the error of a bad record."""
    raise error
