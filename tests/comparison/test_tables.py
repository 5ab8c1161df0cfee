"""Tables of results: every number recomputed from the runs, marks, captions, and what a format must escape."""

import re

import numpy as np
import pytest

from merit_jax.comparison.results import number_of_tests, summarise
from merit_jax.comparison.styles import MARKDOWN
from merit_jax.comparison.tables import main_table, tables
from tests.support.results import PLANS, SCORES, WITHOUT_FRONTIER, outcome, outcomes
from tests.support.results import results as made_up


@pytest.fixture(scope="module")
def results():
    return made_up()


def cells(text):
    """Header -> first cell -> cell, of each Markdown table."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE):
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in block.strip().split("\n")
        ]
        found.append({row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]})
    return found


def numbers(cell):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", cell)]


def of_seeds(name):
    """(retained, skill) of each seed: the mean over its runs."""
    return np.array([np.mean(several, axis=0) for several in SCORES[name].values()])


def test_every_cell_is_the_mean_over_seeds_and_their_deviation(results):
    main, suites, budgets = cells(tables(results, 0.95, MARKDOWN))
    assert list(main) == list(suites) == list(budgets)
    assert list(main) == ["theta0", "joint", "random4", "merit2d", r"joint:train.epochs=2 \*"]
    for name, row, of_suites in zip(SCORES, main.values(), suites.values(), strict=True):
        pairs = of_seeds(name)
        columns = {"mean of suites": pairs.mean(1), "retained": pairs[:, 0], "skill": pairs[:, 1]}
        shown = [(row[title], values) for title, values in columns.items()]
        shown += [
            (of_suites[r"old\_x"], pairs[:, 0]),
            (of_suites["new"], pairs[:, 1]),
            (of_suites["mean"], pairs.mean(1)),
        ]
        for cell, values in shown:
            assert numbers(cell) == pytest.approx([100 * values.mean(), 100 * values.std(ddof=1)], abs=0.051)
    assert [row["runs"] for row in budgets.values()] == ["3", "3", "6", "3", "3"]
    assert [row["seeds"] for row in budgets.values()] == ["3"] * 5
    assert [row["passes"] for row in budgets.values()] == ["0", "1", "1", "1", "2"]
    assert budgets["merit2d"]["time (s)"] == "11 ± 1"
    assert main["merit2d"]["loss on the mixture"] == "1.500 ± 0.100"
    assert "held-out loss" not in budgets["merit2d"]


def test_skill_at_retention_has_the_chosen_scales_and_what_is_retained_there():
    scales = {0: 0.5, 1: 0.25, 2: 0.5}
    runs = [(name, run._replace(kept_scale=scales[run.seed], kept_retained=0.8)) for name, run in outcomes()]
    main, *_ = cells(tables(summarise(PLANS, runs), 0.9, MARKDOWN))
    assert main["merit2d"]["skill at 90 % retention (λ)"] == "<u>25.0</u> ± 5.0 (0.5 ×2, 0.25)"
    assert main["random4"]["skill at 90 % retention (λ)"].endswith("(0.5 ×4, 0.25 ×2)")
    assert main["merit2d"]["retained there"] == "80.0 ± 0.0"


def test_a_model_without_a_line_of_its_own_has_an_empty_cell_that_is_explained():
    runs = [(name, run._replace(**WITHOUT_FRONTIER) if name == "merit2d" else run) for name, run in outcomes()]
    text = tables(summarise(PLANS, runs), 0.95, MARKDOWN)
    main, *_ = cells(text)
    assert main["merit2d"]["skill at 95 % retention (λ)"] == main["merit2d"]["retained there"] == ""
    assert "Empty for a model on another's line" in text
    assert "Empty" not in tables(made_up(), 0.95, MARKDOWN)


def test_theta0_is_in_every_table_with_its_tests(results):
    for table in cells(tables(results, 0.95, MARKDOWN)):
        assert next(iter(table)) == "theta0"
    main, *_ = cells(tables(results, 0.95, MARKDOWN))
    assert main["theta0"]["skill at 95 % retention (λ)"] == "10.0 ± 0.0 (0 ×3)"
    assert main["theta0"]["mean − joint"].startswith("+7.5 [")
    assert main["theta0"]["mean − random"] == ""
    assert main["theta0"]["kept skill − joint"].startswith("-17.5 [")


def test_a_difference_has_its_interval_and_both_p_values(results):
    main, *_ = cells(tables(results, 0.95, MARKDOWN))
    test = results["merit2d"].tests["joint"]
    low, high = (f"{100 * end:.1f}" for end in test.interval[:2])
    assert main["merit2d"]["mean − joint"] == f"+20.0 [{low}, {high}], p = 0.125, Holm 1 (n = 3)"
    assert main["joint"]["mean − joint"] == ""
    without = made_up(answers={}, **WITHOUT_FRONTIER)
    main, *_ = cells(tables(without, 0.95, MARKDOWN))
    assert main["merit2d"]["mean − joint"] == "+20.0, p = 0.125, Holm 0.625 (n = 3)"
    assert number_of_tests(without) == 5


def test_the_captions_say_which_records_how_many_tests_and_seeds(results):
    text = tables(results, 0.95, MARKDOWN)
    assert "All scores are of the same records, the reporting half of each suite" in text
    assert "p corrected for the 10 tests of this table" in text
    assert "95 % percentile bootstrap interval over seeds and questions, paired by both, 9,999 samples" in text
    assert "it is at least 2^-n" in text
    assert "over 3 seeds (of several runs of a seed, their mean)" in text
    assert "equally many training examples of each dataset, which is not the mixture's own mean" in text
    plain = tables(made_up(answers={}, mixture_loss=None, **WITHOUT_FRONTIER), 0.95, MARKDOWN)
    for absent in ("half", "bootstrap", "λ", "retention", "mixture's own", "Paper"):
        assert absent not in plain, absent
    assert "All scores are of the same records." in plain


def test_one_seed_says_that_its_interval_is_over_questions_alone():
    one = summarise(PLANS, [(name, run) for name, run in outcomes() if run.seed == 0])
    text = tables(one, 0.95, MARKDOWN)
    assert "(over questions alone: there is one seed)" in text
    assert "in per cent, of one seed" in text
    assert "over questions alone" not in tables(made_up(), 0.95, MARKDOWN)


def test_the_papers_values_stand_in_the_last_column(results):
    paper = {"joint": "54.3", "merit2d": "55.7 | *3B*", "soup2": "55.4"}
    (main,) = cells(main_table(results, 0.95, MARKDOWN, paper))
    assert {name: row["paper"] for name, row in main.items()} == {
        "theta0": "",
        "joint": "54.3",
        "random4": "",
        "merit2d": r"55.7 \| \*3B\*",
        r"joint:train.epochs=2 \*": "",
    }
    assert list(main["joint"])[-1] == "paper"
    assert "paper" not in next(iter(cells(main_table(results, 0.95, MARKDOWN, {"soup2": "55.4"}))[0].values()))


def test_the_best_is_bold_the_second_underlined_and_controls_are_not_ranked(results):
    _, suites, _ = cells(tables(results, 0.95, MARKDOWN))
    marked = {name: row["new"].split(" ±")[0] for name, row in suites.items()}
    assert marked == {
        "theta0": "10.0",
        "joint": "**55.0**",
        "random4": "26.7",
        "merit2d": "<u>50.0</u>",
        r"joint:train.epochs=2 \*": "95.0",
    }
    for caption in re.split(r"^\|.*\n?", tables(results, 0.95, MARKDOWN), flags=re.MULTILINE):
        assert not caption.strip() or r"\*: a control with another budget, not ranked." in caption


def test_equal_scores_as_printed_share_a_mark():
    runs = [("joint", outcome(0, "joint", 0.5, 0.30004)), ("merit2d", outcome(0, "merit2d", 0.5, 0.3))]
    _, suites, _ = cells(tables(summarise(PLANS, runs), 0.95, MARKDOWN))
    assert [row["new"] for row in suites.values()] == ["30.0", "30.0"]
    runs.append(("theta0", outcome(0, "theta0", 0.5, 0.2)))
    _, suites, _ = cells(tables(summarise(PLANS, runs), 0.95, MARKDOWN))
    assert [row["new"] for row in suites.values()] == ["<u>20.0</u>", "**30.0**", "**30.0**"]


def test_without_suites_the_mean_is_of_datasets_and_a_dataset_may_be_called_mean():
    changes = {"retained": None, "skill": None, "skill_suites": (), "loss": 1.25, **WITHOUT_FRONTIER}
    scores = {"mean": 0.2, "other": 0.4}
    runs = [(name, run._replace(scores=scores)) for name, run in outcomes(**changes)]
    text = tables(summarise(PLANS, runs), 0.95, MARKDOWN)
    main, _, budgets = (next(iter(table.values())) for table in cells(text))
    assert list(main)[:2] == ["method", "mean of datasets"]
    assert budgets["held-out loss"] == "1.250 ± 0.000"
    header = next(line for line in text.split("\n") if line.startswith("|") and " other " in line)
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["method", "mean", "other", "mean"]
