"""What a section of the report consists of, apart from how it is written."""

from collections.abc import Sequence
from typing import NamedTuple

from merit_jax.reporting.figures import Figure


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Cell(NamedTuple):
    """A cell of a table that stands out.

    Attributes:
        text: What it says.
        best: Whether it is the best of its kind.
        branch: The branch whose colour it has; None: no branch.
    """

    text: str
    best: bool = False
    branch: int | None = None


class Table(NamedTuple):
    """A table; its first column names the rows, the others are numbers unless `words` says so.

    Attributes:
        caption: What it shows.
        header: Names of the columns.
        rows: Their cells.
        words: Columns of words, besides the first.
        folded: Whether it is opened by a click.
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
        label: What it is.
        note: What to compare it with.
    """

    value: str
    label: str
    note: str = ""


class Tiles(NamedTuple):
    """Numbers side by side."""

    tiles: Sequence[Tile]


class Missing(NamedTuple):
    """What is not there yet.

    Attributes:
        what: What it would show.
        command: What makes it.
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
