"""Results as Markdown and LaTeX: the main table with all tests, every suite, and budgets and times."""

from collections.abc import Mapping, Sequence

from merit_jax.comparison.columns import (
    AROUND_THETA0,
    COSTS,
    MIXTURE_LOSS,
    TESTS,
    Column,
    Results,
    cells,
    score_columns,
    shown,
    suite_columns,
    tested,
)
from merit_jax.comparison.intervals import LEVEL, RESAMPLES
from merit_jax.comparison.results import MethodResult, number_of_tests
from merit_jax.comparison.styles import Style


def tables(results: Results, retention: float, style: Style, paper: Mapping[str, str] | None = None) -> str:
    """Returns all tables, with captions that define their numbers.

    Args:
        results: As `results.summarise` has them; at least one.
        retention: Share of theta0's retained score that counts as kept.
        style: `MARKDOWN` or `LATEX`.
        paper: As for `main_table`.
    """
    return "\n\n".join(
        [main_table(results, retention, style, paper), suite_table(results, style), budget_table(results, style)]
    )


def main_table(results: Results, retention: float, style: Style, paper: Mapping[str, str] | None = None) -> str:
    """Returns the table of means, tests, and distances from theta0.

    Args:
        results: As for `tables`.
        retention: As for `tables`.
        style: As for `tables`.
        paper: Method -> the paper's value, for a last column; methods that are not in the table are ignored.
    """
    tests = [name for name in TESTS if any(name in result.tests for result in results.values())]
    titled = [
        *_numbers(results, score_columns(results, retention), style),
        *((TESTS[name], [style.text(tested(r.tests.get(name))) for r in results.values()]) for name in tests),
        *_numbers(results, shown(results, AROUND_THETA0), style),
    ]
    if paper and any(name in paper for name in results):
        titled.append(("paper", [style.escape(paper.get(name, "")) for name in results]))
    titles = [title for title, _ in titled]
    return _table(results, _own(titled, style), about_main(results, retention, titles), style)


def suite_table(results: Results, style: Style) -> str:
    """Returns the table of every suite (or dataset, where there are no suites); arguments as for `tables`."""
    about = f"Accuracy in per cent, {_about_spread(results)}; best bold, second underlined."
    *suites, mean = suite_columns(results)
    titled = [(style.escape(title), values) for title, values in _numbers(results, suites, style)]
    titled += _own(_numbers(results, [mean], style), style)
    return _table(results, titled, about + _about_records(results) + _about_controls(results), style)


def budget_table(results: Results, style: Style) -> str:
    """Returns the table of seeds, runs, budgets and times; arguments as for `tables`."""
    titled = [
        ("seeds", [str(len({run.seed for run in result.outcomes})) for result in results.values()]),
        ("runs", [str(len(result.outcomes)) for result in results.values()]),
        ("passes", [f"{result.plan.passes:g}" for result in results.values()]),
        *_numbers(results, shown(results, COSTS), style),
    ]
    about = (
        "Runs: of all seeds together; several of a seed are its random partitions. Passes: budget in passes over the mixture, "
        "all branches together (a soup of K is K full runs). Tokens: supervised tokens trained on. Time: gradients and "
        f"training, branches one after the other. Numbers are {_about_spread(results)}."
    )
    return _table(results, _own(titled, style), about + _about_controls(results), style)


def about_main(results: Results, retention: float, titles: Sequence[str]) -> str:
    """Returns the main table's caption, as plain text.

    Args:
        results: As for `tables`.
        retention: As for `tables`.
        titles: Of the columns.
    """
    parts = [
        f"Scores: accuracy in per cent, {_about_spread(results)}; best bold, second underlined."
        + _about_records(results)
    ]
    if any("(λ)" in title for title in titles):
        parts.append(
            f"Skill at {100 * retention:g} % retention (kept skill): of theta0 + λ · task vector, at the measured λ, 0 "
            "included, that has the highest skill on the choosing half among those that retain there at least "
            f"{100 * retention:g} % of theta0's score; in parentheses each chosen λ and in how many runs. Retained there: the "
            "retained score at that λ. Both are measured on the reporting half."
            + " Empty for a model on another's line, as WiSE is on joint training's."
            * _shares_a_line(results)
        )
    if number := number_of_tests(results):
        parts.append(_about_tests(results, number))
    if MIXTURE_LOSS in titles:
        parts.append(
            "Loss on the mixture: nats per supervised token over equally many training examples of each dataset, which is not "
            "the mixture's own mean, where larger datasets count more."
        )
    if "paper" in titles:
        parts.append("Paper: its mean over its own benchmarks and models.")
    return " ".join(parts) + _about_controls(results)


def _about_tests(results: Results, number: int) -> str:
    found = [test for result in results.values() for test in result.tests.values()]
    intervals = [test.interval for test in found if test.interval]
    single = " (over questions alone: there is one seed)" if any(i.seeds == 1 for i in intervals) else ""
    bracket = (
        f"; in brackets the {100 * LEVEL:g} % percentile bootstrap interval over seeds and questions, paired by both"
        f"{single}, {RESAMPLES:,} samples"
    )
    return (
        f"Differences are in points, paired by seed{bracket * bool(intervals)}. p: one-sided Wilcoxon signed-rank test that the "
        f"method is better, over n seeds; it is at least 2^-n. Holm: p corrected for the {number} tests of this table. Random: "
        "the random split into as many branches, with the method's own training and merge where it is among the methods; its "
        "partitions are averaged in each seed."
    )


def _about_spread(results: Results) -> str:
    seeds = sorted({len({run.seed for run in result.outcomes}) for result in results.values()})
    text = f"mean ± standard deviation over {'–'.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"
    if seeds == [1]:
        text = "of one seed"
    several = any(len(result.outcomes) > len({run.seed for run in result.outcomes}) for result in results.values())
    return text + several * " (of several runs of a seed, their mean)"


def _about_records(results: Results) -> str:
    if any(run.kept_scale is not None for result in results.values() for run in result.outcomes):
        return " All scores are of the same records, the reporting half of each suite; λ was chosen on the other."
    return " All scores are of the same records."


def _shares_a_line(results: Results) -> bool:
    return any(run.kept_scale is None for result in results.values() for run in result.outcomes)


def _about_controls(results: Results) -> str:
    controls = any(result.plan.control for result in results.values())
    return controls * " *: a control with another budget, not ranked."


def _mark(result: MethodResult) -> str:
    return " *" if result.plan.control else ""


Titled = tuple[str, list[str]]
"""A column as it is printed: its title and its cells."""


def _numbers(results: Results, columns: Sequence[Column], style: Style) -> list[Titled]:
    return [(column.title, cells(results, column, style)) for column in columns]


def _own(titled: Sequence[Titled], style: Style) -> list[Titled]:
    """Returns the columns with titles in the format; they are the tables' own words."""
    return [(style.text(title), values) for title, values in titled]


def _table(results: Results, titled: Sequence[Titled], caption: str, style: Style) -> str:
    """Returns a table with the methods in front."""
    names = [style.escape(name + _mark(result)) for name, result in results.items()]
    rows = zip(names, *(values for _, values in titled), strict=True)
    return style.table(["method", *(title for title, _ in titled)], list(map(list, rows)), style.text(caption))
