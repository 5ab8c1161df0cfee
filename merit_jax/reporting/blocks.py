"""The parts of a section of the report, apart from how they are written."""

from collections.abc import Sequence
from typing import NamedTuple

from merit_jax.reporting.figures import Figure


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Cell(NamedTuple):
    """A cell of a table that stands out.

    Attributes:
        text: Its words.
        best: It is the best of its kind.
        branch: The branch whose colour it has; None: no branch.
    """

    text: str
    best: bool = False
    branch: int | None = None


class Table(NamedTuple):
    """A table; its first column names the rows, the others are numbers unless `words` says so.

    Attributes:
        caption: Its subject.
        header: Names of the columns.
        rows: Their cells.
        words: Columns of words, other than the first.
        folded: It is opened by a click.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    words: Sequence[int] = ()
    folded: bool = False


class Tile(NamedTuple):
    """A number that sums up something.

    Attributes:
        value: The number, with its unit.
        label: The quantity.
        note: Numbers to compare it with.
    """

    value: str
    label: str
    note: str = ""


class Tiles(NamedTuple):
    """Numbers in a row."""

    tiles: Sequence[Tile]


class Missing(NamedTuple):
    """A note in place of results that are not there yet.

    Attributes:
        what: The results.
        command: The command that makes them.
    """

    what: str
    command: str


class Verbatim(NamedTuple):
    """Text as it stands, opened by a click."""

    caption: str
    text: str


Part = Text | Table | Tiles | Missing | Verbatim | Figure


class Section(NamedTuple):
    """A section of the report.

    Attributes:
        name: Within the page's address.
        title: Its heading.
        parts: In order.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
