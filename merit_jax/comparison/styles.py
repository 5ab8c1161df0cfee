"""Formats of tables: Markdown and LaTeX."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tabulate import LATEX_ESCAPE_RULES, DataRow, Line, TableFormat, tabulate

from merit_jax.core.text import visible


class Style(NamedTuple):
    """A format of tables.

    Attributes:
        escape: Writes a name so that it is shown as it is.
        text: Writes the tables' own words and symbols.
        best: Marks the best of a column.
        second: Marks the second best.
        table: (header, rows, caption) -> the table.
    """

    escape: Callable[[str], str]
    text: Callable[[str], str]
    best: Callable[[str], str]
    second: Callable[[str], str]
    table: Callable[[Sequence[str], Sequence[Sequence[str]], str], str]


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], form: str | TableFormat) -> str:
    """The first column to the left, the others to the right; cells are as they are."""
    sides = ["left", *["right"] * (len(header) - 1)]
    return tabulate(rows, header, tablefmt=form, colalign=sides, disable_numparse=True)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    return f"{_aligned(header, rows, 'pipe')}\n\n{caption}"


def _latex(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    return f"\\begin{{table}}\n\\centering\n{_aligned(header, rows, BOOKTABS)}\n\\caption{{{caption}}}\n\\end{{table}}"


BOOKTABS = TableFormat(
    lineabove=lambda _, sides: f"\\begin{{tabular}}{{{''.join(side[0] for side in sides)}}}\n\\toprule",
    linebelowheader=Line("\\midrule", "", "", ""),
    linebetweenrows=None,
    linebelow=Line("\\bottomrule\n\\end{tabular}", "", "", ""),
    headerrow=DataRow("", " & ", r" \\"),
    datarow=DataRow("", " & ", r" \\"),
    padding=0,
    with_header_hide=None,
)
"""Tabulate's `latex_booktabs` but for cells, which are escaped before they are marked."""

LATEX_SYMBOLS = {"±": r"$\pm$", "×": r"$\times$", "−": r"$-$", "λ": r"$\lambda$", "·": r"$\cdot$", "–": "--"}
"""Symbols of the tables that LaTeX does not take as they are."""


def _escape_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in visible(text))


def _escape_latex(text: str) -> str:
    rules = {**LATEX_ESCAPE_RULES, **LATEX_SYMBOLS}
    return "".join(rules.get(c, c) for c in visible(text))


MARKDOWN = Style(
    _escape_markdown,
    lambda text: text.replace("*", r"\*"),
    lambda text: f"**{text}**",
    lambda text: f"<u>{text}</u>",
    _markdown,
)
LATEX = Style(_escape_latex, _escape_latex, r"\textbf{{{}}}".format, r"\underline{{{}}}".format, _latex)
