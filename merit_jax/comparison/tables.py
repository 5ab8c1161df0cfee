"""Results as Markdown and LaTeX: a table of scores, and one of budgets, times and tests."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tabulate import LATEX_ESCAPE_RULES, DataRow, Line, TableFormat, tabulate

from merit_jax.comparison.results import MethodResult, RunResult, score_of
from merit_jax.comparison.statistics import Paired, Spread


class Style(NamedTuple):
    """A format of tables.

    Attributes:
        escape: Writes text as it stands.
        best: Marks the best of a column.
        second: Marks the second best.
        plus_minus: Between a mean and its standard deviation.
        table: (header, rows, caption) -> the table.
    """

    escape: Callable[[str], str]
    best: Callable[[str], str]
    second: Callable[[str], str]
    plus_minus: str
    table: Callable[[Sequence[str], Sequence[Sequence[str]], str], str]


class Column(NamedTuple):
    """A column of the table of scores, or of costs.

    Attributes:
        title: Its header.
        value: Its number of a run.
        factor: Units; 100 for per cent.
        decimals: Digits behind the point.
        ranked: Higher is better, and the best two are marked.
    """

    title: str
    value: Callable[[RunResult], float | None]
    factor: float = 100
    decimals: int = 1
    ranked: bool = True


def tables(results: Mapping[str, MethodResult], retention: float, style: Style) -> str:
    """Returns both tables, with captions that define their numbers.

    Args:
        results: As `results.summarise` has them; at least one.
        retention: Share of theta0's retained score that counts as kept.
        style: `MARKDOWN` or `LATEX`.
    """
    scores = [column for column in score_columns(results, retention) if _shown(results, column)]
    costs = [column for column in COSTS if _shown(results, column)]
    first = [
        [style.escape(name + _mark(result)), *cells]
        for (name, result), *cells in zip(
            results.items(), *(_cells(results, column, style) for column in scores), strict=True
        )
    ]
    tests = [title for title in TESTS if any(TESTS[title](result) for result in results.values())]
    second = [
        [
            style.escape(name + _mark(result)),
            str(len(result.outcomes)),
            f"{result.plan.passes:g}",
            *cells,
            *(style.escape(tested(TESTS[title](result))) for title in tests),
        ]
        for (name, result), *cells in zip(
            results.items(), *(_cells(results, column, style) for column in costs), strict=True
        )
    ]
    header = ["method", "runs", "passes", *(column.title for column in costs), *tests]
    return "\n\n".join(
        [
            style.table(
                _escaped(["method", *(c.title for c in scores)], style), first, style.escape(_about_scores(results))
            ),
            style.table(_escaped(header, style), second, style.escape(ABOUT_COSTS)),
        ]
    )


def score_columns(results: Mapping[str, MethodResult], retention: float) -> list[Column]:
    """Returns a column per suite, then their mean, the retained score and the skill."""
    suites = next(iter(results.values())).outcomes[0].scores
    return [
        *(Column(suite, score_of(suite)) for suite in suites),
        Column("mean", lambda run: run.mean),
        Column("retained", lambda run: run.retained),
        Column("skill", lambda run: run.skill),
        Column(f"skill at {100 * retention:g} % retention", lambda run: run.kept_skill),
    ]


COSTS = (
    Column("tokens", lambda run: run.tokens, 1, 0, ranked=False),
    Column("time (s)", lambda run: run.seconds, 1, 0, ranked=False),
    Column("held-out loss", lambda run: run.loss, 1, 3, ranked=False),
    Column("mixture loss", lambda run: run.mixture_loss, 1, 3, ranked=False),
    Column("distance from theta0", lambda run: run.displacement, 1, 2, ranked=False),
)
"""Columns of the second table."""

TESTS: dict[str, Callable[[MethodResult], Paired | None]] = {
    "mean > joint": lambda result: result.joint,
    "mean > random": lambda result: result.random,
    "skill at retention > joint": lambda result: result.kept_joint,
    "skill at retention > random": lambda result: result.kept_random,
}
"""Title -> paired comparison."""

ABOUT_COSTS = (
    "Passes: budget in passes over the mixture, all branches together (a soup of K is K full runs). Tokens: supervised tokens "
    "trained on. Time: gradients and training, branches one after the other. Tests: mean difference in points and p of the "
    "one-sided Wilcoxon signed-rank test, exact, over n pairs of runs with the same seed (p is at least 2^-n); random is the "
    "random split into as many branches, its partitions averaged first."
)


def tested(found: Paired | None) -> str:
    """Returns a paired comparison in a cell.

    Examples:
        >>> tested(Paired(0.025, 5, 0.03125))
        '+2.5, p = 0.0312 (n = 5)'
    """
    return "" if found is None else f"{100 * found.difference:+.1f}, p = {found.p:.3g} (n = {found.n})"


def _about_scores(results: Mapping[str, MethodResult]) -> str:
    controls = any(result.plan.control for result in results.values())
    return (
        "Accuracy in per cent, mean and standard deviation over the runs; best bold, second underlined."
        + controls * " *: a control with another budget, not ranked."
    )


def _mark(result: MethodResult) -> str:
    return " *" if result.plan.control else ""


def _shown(results: Mapping[str, MethodResult], column: Column) -> bool:
    return any(result.spread(column.value) is not None for result in results.values())


def _cells(results: Mapping[str, MethodResult], column: Column, style: Style) -> list[str]:
    """One column, the best two of its means (as printed) marked."""
    spreads = {name: result.spread(column.value) for name, result in results.items()}
    means = {name: _number(found.mean, column) for name, found in spreads.items() if found}
    ranked = [float(text) for name, text in means.items() if column.ranked and not results[name].plan.control]
    best = sorted(set(ranked), reverse=True)[:2]
    marks = dict(zip(best, (style.best, style.second), strict=False)) if len(best) > 1 else {}
    cells = []
    for name, found in spreads.items():
        if found is None:
            cells.append("")
            continue
        mark = str if results[name].plan.control else marks.get(float(means[name]), str)
        cells.append(mark(means[name]) + _deviation(found, column, style))
    return cells


def _number(value: float, column: Column) -> str:
    return f"{column.factor * value:.{column.decimals}f}"


def _deviation(found: Spread, column: Column, style: Style) -> str:
    return f" {style.plus_minus} {_number(found.std, column)}" if found.std is not None else ""


def _escaped(texts: Sequence[str], style: Style) -> list[str]:
    return [style.escape(text) for text in texts]


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


def _escape_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text)


def _escape_latex(text: str) -> str:
    return "".join(LATEX_ESCAPE_RULES.get(c, c) for c in text)


MARKDOWN = Style(_escape_markdown, lambda text: f"**{text}**", lambda text: f"<u>{text}</u>", "±", _markdown)
LATEX = Style(_escape_latex, r"\textbf{{{}}}".format, r"\underline{{{}}}".format, r"$\pm$", _latex)
