"""Tables of results: every number recomputed from the runs, marks, and what a format must escape."""

import json
import re

import numpy as np
import pytest

from merit_jax.comparison.results import MethodPlan, RunResult, summarise, to_json
from merit_jax.comparison.tables import LATEX, MARKDOWN, tables

SCORES = {
    "theta0": {0: [(0.9, 0.1)], 1: [(0.9, 0.1)], 2: [(0.9, 0.1)]},
    "joint": {0: [(0.2, 0.6)], 1: [(0.3, 0.5)], 2: [(0.4, 0.55)]},
    "random4": {0: [(0.8, 0.2), (0.6, 0.3)], 1: [(0.7, 0.3), (0.7, 0.35)], 2: [(0.8, 0.25), (0.6, 0.2)]},
    "merit2d": {0: [(0.8, 0.4)], 1: [(0.7, 0.5)], 2: [(0.75, 0.6)]},
    "joint:train.epochs=2": {0: [(0.1, 0.95)], 1: [(0.1, 0.96)], 2: [(0.1, 0.97)]},
}
PLANS = {
    "theta0": MethodPlan(0, 0.0, False, None),
    "joint": MethodPlan(1, 1.0, False, None),
    "random4": MethodPlan(4, 1.0, False, None),
    "merit2d": MethodPlan(4, 1.0, False, "random4"),
    "joint:train.epochs=2": MethodPlan(1, 2.0, True, None),
}


def outcome(seed, name, old, new, **changes):
    values = {
        "seed": seed,
        "variant": name,
        "scores": {"old_x": old, "new": new},
        "mean": (old + new) / 2,
        "retained": old,
        "skill": new,
        "kept_skill": None if name == "theta0" else new / 2,
        "points": (),
        "loss": None,
        "mixture_loss": 1 + new,
        "displacement": 2.0,
        "tokens": 100,
        "seconds": 10.0 + seed,
    }
    return RunResult(**{**values, **changes})


@pytest.fixture
def results():
    runs = [
        (name, outcome(seed, name, *scores))
        for name, seeds in SCORES.items()
        for seed, several in seeds.items()
        for scores in several
    ]
    return summarise(PLANS, runs)


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


def test_every_cell_is_the_mean_and_deviation_over_all_runs(results):
    scores, costs = cells(tables(results, 0.95, MARKDOWN))
    assert list(scores) == ["theta0", "joint", "random4", "merit2d", r"joint:train.epochs=2 \*"]
    for name, row in zip(SCORES, scores.values(), strict=True):
        pairs = np.array([pair for several in SCORES[name].values() for pair in several])
        columns = {r"old\_x": pairs[:, 0], "new": pairs[:, 1], "mean": pairs.mean(1), "retained": pairs[:, 0]}
        for title, values in columns.items():
            assert numbers(row[title]) == pytest.approx([100 * values.mean(), 100 * values.std(ddof=1)], abs=0.051)
    assert scores["theta0"]["skill at 95 % retention"] == ""
    assert [row["runs"] for row in costs.values()] == ["3", "3", "6", "3", "3"]
    assert [row["passes"] for row in costs.values()] == ["0", "1", "1", "1", "2"]
    assert costs["merit2d"]["time (s)"] == "11 ± 1"
    assert "held-out loss" not in costs["merit2d"]


def test_the_best_is_bold_the_second_underlined_and_controls_are_not_ranked(results):
    scores, _ = cells(tables(results, 0.95, MARKDOWN))
    marked = {name: row["new"].split(" ±")[0] for name, row in scores.items()}
    assert marked == {
        "theta0": "10.0",
        "joint": "**55.0**",
        "random4": "26.7",
        "merit2d": "<u>50.0</u>",
        r"joint:train.epochs=2 \*": "96.0",
    }


def test_equal_scores_as_printed_share_a_mark():
    runs = [("joint", outcome(0, "joint", 0.5, 0.30004)), ("merit2d", outcome(0, "merit2d", 0.5, 0.3))]
    scores, _ = cells(tables(summarise(PLANS, runs), 0.95, MARKDOWN))
    assert [row["new"] for row in scores.values()] == ["30.0", "30.0"]
    runs.append(("theta0", outcome(0, "theta0", 0.5, 0.2)))
    scores, _ = cells(tables(summarise(PLANS, runs), 0.95, MARKDOWN))
    assert [row["new"] for row in scores.values()] == ["<u>20.0</u>", "**30.0**", "**30.0**"]


def test_methods_are_paired_by_seed_with_joint_and_with_the_random_splits_mean(results):
    merit = results["merit2d"]
    ours = [np.mean(SCORES["merit2d"][seed]) for seed in range(3)]
    joint = [np.mean(SCORES["joint"][seed]) for seed in range(3)]
    random = [np.mean(SCORES["random4"][seed]) for seed in range(3)]
    assert merit.joint == (pytest.approx(np.mean(ours) - np.mean(joint)), 3, 0.125)
    assert merit.random == (pytest.approx(np.mean(ours) - np.mean(random)), 3, 0.125)
    assert merit.kept_joint.difference == pytest.approx(-0.025)
    assert merit.kept_joint.p == pytest.approx(0.75)
    assert (results["joint"].joint, results["joint"].random, results["random4"].random) == (None, None, None)
    assert results["random4"].joint.n == 3
    assert results["theta0"].kept_joint is None
    _, costs = cells(tables(results, 0.95, MARKDOWN))
    assert costs["merit2d"]["mean \\> joint"] == "+20.0, p = 0.125 (n = 3)"
    assert costs["joint"]["mean \\> joint"] == ""


def test_latex_marks_and_escapes(results):
    text = tables(results, 0.95, LATEX)
    assert r"old\_x" in text
    assert r"skill at 95 \% retention" in text
    assert r"mean \ensuremath{>} joint" in text
    assert r"\textbf{55.0} $\pm$ 5.0" in text
    assert r"\underline{50.0} $\pm$ 10.0" in text
    for table in text.split(r"\end{table}")[:-1]:
        columns = len(re.search(r"\{tabular\}\{(l r*|lr*)\}", table)[1])
        body = [line for line in table.split("\n") if line.endswith(r"\\")]
        assert {len(re.split(r"(?<!\\)&", line)) for line in body} == {columns}
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 2


def test_json_has_runs_spreads_and_tests(results):
    content = json.loads(json.dumps(to_json(results, {"seeds": [0, 1, 2]})))
    merit = content["methods"]["merit2d"]
    assert content["seeds"] == [0, 1, 2]
    assert [run["scores"]["new"] for run in merit["runs"]] == [0.4, 0.5, 0.6]
    assert merit["scores"]["new"] == {"mean": pytest.approx(0.5), "std": pytest.approx(0.1), "n": 3}
    assert merit["wilcoxon"]["joint"]["p"] == 0.125
    assert content["methods"]["theta0"]["kept_skill"] is None
    assert content["methods"]["joint:train.epochs=2"]["control"] is True
