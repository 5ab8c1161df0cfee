"""Columns of the tables: numbers of a method over its seeds, best and second best marked, and comparisons."""

from collections import Counter
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import NamedTuple

from merit_jax.comparison.results import MethodResult, RunResult, Value, score_of
from merit_jax.comparison.statistics import Paired, Spread
from merit_jax.comparison.styles import Style

Results = Mapping[str, MethodResult]
"""Method -> its runs and tests, as `results.summarise` has them."""


class Column(NamedTuple):
    """A column of numbers.

    Attributes:
        title: Its header.
        value: Its number of a run.
        factor: Units; 100 for per cent.
        decimals: Digits behind the point.
        ranked: Higher is better, and the best two are marked.
        note: Further text of a method's cell, in parentheses.
    """

    title: str
    value: Value
    factor: float = 100
    decimals: int = 1
    ranked: bool = True
    note: Callable[[MethodResult], str] | None = None


TESTS: dict[str, str] = {
    "joint": "mean − joint",
    "random": "mean − random",
    "kept_joint": "kept skill − joint",
    "kept_random": "kept skill − random",
}
"""Key of `results.TESTS` -> header of its column."""

COSTS = (
    Column("tokens", attrgetter("tokens"), 1, 0, ranked=False),
    Column("time (s)", attrgetter("seconds"), 1, 0, ranked=False),
    Column("held-out loss", attrgetter("loss"), 1, 3, ranked=False),
)
"""Columns of the table of budgets."""

MIXTURE_LOSS = "loss on the mixture"
AROUND_THETA0 = (
    Column(MIXTURE_LOSS, attrgetter("mixture_loss"), 1, 3, ranked=False),
    Column("distance from theta0", attrgetter("displacement"), 1, 2, ranked=False),
)
"""Columns of the main table after the tests."""


def score_columns(results: Results, retention: float) -> list[Column]:
    """Returns the columns of retained score, skill, skill at the chosen scale, and the mean of all."""
    sets = "suites" if any(run.skill_suites or run.retained is not None for run in _runs(results)) else "datasets"
    columns = [
        Column("retained", attrgetter("retained")),
        Column("skill", attrgetter("skill")),
        Column(f"skill at {100 * retention:g} % retention (λ)", attrgetter("kept_skill"), note=scales),
        Column("retained there", attrgetter("kept_retained"), ranked=False),
        Column(f"mean of {sets}", attrgetter("mean")),
    ]
    return shown(results, columns)


def suite_columns(results: Results) -> list[Column]:
    """Returns a column per suite, then their mean."""
    suites = next(iter(results.values())).outcomes[0].scores
    return [*(Column(suite, score_of(suite)) for suite in suites), Column("mean", attrgetter("mean"))]


def shown(results: Results, columns: list[Column] | tuple[Column, ...]) -> list[Column]:
    """Returns the columns that any method has a number for."""
    return [column for column in columns if any(result.spread(column.value) for result in results.values())]


def scales(result: MethodResult) -> str:
    """Returns the chosen scales of a method's runs, the most frequent first, with their counts.

    Examples:
        >>> run = RunResult(*[None] * len(RunResult._fields))
        >>> runs = tuple(run._replace(kept_scale=scale) for scale in (0.25, 0.5, 0.5))
        >>> scales(MethodResult(None, runs, {}))
        '0.5 ×2, 0.25'
    """
    counts = Counter(run.kept_scale for run in result.outcomes if run.kept_scale is not None)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{scale:g}" + (f" ×{count}" if count > 1 else "") for scale, count in ordered)


def tested(found: Paired | None) -> str:
    """Returns a paired comparison in a cell.

    Examples:
        >>> tested(Paired(0.025, 5, 0.03125, 0.125))
        '+2.5, p = 0.0312, Holm 0.125 (n = 5)'
    """
    if found is None:
        return ""
    interval = f" [{100 * found.interval.low:z.1f}, {100 * found.interval.high:z.1f}]" if found.interval else ""
    holm = f", Holm {found.holm:.3g}" if found.holm is not None else ""
    return f"{100 * found.difference:+z.1f}{interval}, p = {found.p:.3g}{holm} (n = {found.n})"


def cells(results: Results, column: Column, style: Style) -> list[str]:
    """Returns one column: mean ± deviation of each method, the best two of the means (as printed) marked."""
    spreads = {name: result.spread(column.value) for name, result in results.items()}
    means = {name: _number(found.mean, column) for name, found in spreads.items() if found}
    ranked = [float(text) for name, text in means.items() if column.ranked and not results[name].plan.control]
    best = sorted(set(ranked), reverse=True)[:2]
    marks = dict(zip(best, (style.best, style.second), strict=False)) if len(best) > 1 else {}
    written = []
    for name, found in spreads.items():
        if found is None:
            written.append("")
            continue
        mark = str if results[name].plan.control else marks.get(float(means[name]), str)
        note = f" ({column.note(results[name])})" if column.note else ""
        written.append(mark(means[name]) + style.text(_deviation(found, column) + note))
    return written


def _runs(results: Results) -> list[RunResult]:
    return [run for result in results.values() for run in result.outcomes]


def _number(value: float, column: Column) -> str:
    return f"{column.factor * value:.{column.decimals}f}"


def _deviation(found: Spread, column: Column) -> str:
    return f" ± {_number(found.std, column)}" if found.std is not None else ""
