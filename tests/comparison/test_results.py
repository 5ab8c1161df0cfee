"""What methods are compared by: pairs of seeds, answers to the same questions, and one correction for all tests."""

import json

import numpy as np
import pytest

from merit_jax.comparison.intervals import bootstrap_intervals
from merit_jax.comparison.results import TESTS, number_of_tests, summarise, to_json
from merit_jax.comparison.statistics import holm
from tests.support.results import PLANS, SCORES, WITHOUT_FRONTIER, outcome, outcomes, results


@pytest.fixture(scope="module")
def found():
    return results()


def mean(name, seed):
    return np.mean(SCORES[name][seed])


def test_methods_are_paired_by_seed_with_joint_and_with_the_random_splits_mean(found):
    merit = found["merit2d"].tests
    ours, joint, random = ([mean(name, seed) for seed in range(3)] for name in ("merit2d", "joint", "random4"))
    assert merit["joint"][:3] == (pytest.approx(np.mean(ours) - np.mean(joint)), 3, 0.125)
    assert merit["random"][:3] == (pytest.approx(np.mean(ours) - np.mean(random)), 3, 0.125)
    assert merit["kept_joint"].difference == pytest.approx(-0.025)
    assert merit["kept_joint"].p == pytest.approx(0.75)
    assert found["joint"].tests == {}
    assert set(found["random4"].tests) == {"joint", "kept_joint"}
    assert found["random4"].tests["joint"].n == 3, "partitions of a seed are one pair"


def test_theta0_is_tested_against_joint_training_too(found):
    assert set(found["theta0"].tests) == {"joint", "kept_joint"}
    assert found["theta0"].tests["kept_joint"].difference == pytest.approx(0.1 - 0.55 / 2)


def test_other_tests_replace_the_usual_ones():
    def answers(run):
        return {"old_x": run.answers["old_x"]}

    tests = {"retained − random": TESTS["random"]._replace(value=lambda run: run.retained, answers=answers)}
    found = summarise(PLANS, outcomes(), tests)
    assert {name: list(result.tests) for name, result in found.items() if result.tests} == {"merit2d": list(tests)}
    (test,) = found["merit2d"].tests.values()
    assert test.difference == pytest.approx(np.mean([0.8 - 0.7, 0.0, 0.75 - 0.7]))
    assert test.holm == test.p, "it is the only one"
    assert test.interval.low <= test.difference <= test.interval.high


def test_p_values_are_corrected_for_all_tests_together(found):
    tests = [test for result in found.values() for test in result.tests.values()]
    assert number_of_tests(found) == len(tests) == 10
    assert [test.holm for test in tests] == holm([test.p for test in tests])
    assert found["merit2d"].tests["joint"].holm == 1


def test_intervals_are_of_the_scores_that_are_compared(found):
    runs = {
        name: {s: [run for run in result.outcomes if run.seed == s] for s in range(3)} for name, result in found.items()
    }

    def sides(read):
        return tuple({s: [read(run) for run in runs[name][s]] for s in runs[name]} for name in ("merit2d", "random4"))

    merit = found["merit2d"].tests
    assert merit["random"].interval == bootstrap_intervals([sides(lambda run: run.answers)])[0]
    skill = bootstrap_intervals([sides(lambda run: {"new": run.kept_answers["new"]})])[0]
    assert merit["kept_random"].interval == skill, "the retained suites are no part of the skill"
    assert merit["random"].interval.low < merit["random"].difference < merit["random"].interval.high
    assert merit["random"].interval.questions == 2 * 22, "three seeds of twenty questions, each shifted by one"


def test_without_a_frontier_or_answers_nothing_is_made_up():
    assert set(results(**WITHOUT_FRONTIER)["merit2d"].tests) == {"joint", "random"}
    assert results(answers={})["merit2d"].tests["joint"].interval is None


def test_a_spread_counts_seeds_and_states_runs(found):
    spread = found["random4"].spread(lambda run: run.skill)
    means = [np.mean([new for _, new in SCORES["random4"][seed]]) for seed in range(3)]
    assert (spread.n, spread.runs) == (3, 6)
    assert (spread.mean, spread.std) == (pytest.approx(np.mean(means)), pytest.approx(np.std(means, ddof=1)))
    assert found["merit2d"].spread(lambda run: run.loss) is None


def test_methods_without_runs_are_left_out():
    assert list(summarise(PLANS, [("joint", outcome(0, "joint", 0.5, 0.5))])) == ["joint"]
    assert len(outcomes()) == 18


def test_json_has_runs_spreads_and_tests(found):
    content = json.loads(json.dumps(to_json(found, {"seeds": [0, 1, 2]})))
    merit = content["methods"]["merit2d"]
    assert content["seeds"] == [0, 1, 2]
    assert content["tests"] == {"number": 10, "correction": "Holm", "level": 0.95, "resamples": 9999}
    assert [run["scores"]["new"] for run in merit["runs"]] == [0.4, 0.5, 0.6]
    assert merit["scores"]["new"] == {
        "mean": pytest.approx(0.5),
        "std": pytest.approx(0.1),
        "n": 3,
        "runs": 3,
        "within": None,
    }
    test = found["merit2d"].tests["joint"]
    assert (merit["tests"]["joint"]["p"], merit["tests"]["joint"]["holm"]) == (0.125, test.holm)
    assert merit["tests"]["joint"]["interval"] == {**test.interval._asdict()}
    assert content["methods"]["theta0"]["kept_skill"]["mean"] == pytest.approx(0.1)
    assert content["methods"]["theta0"]["tests"]["random"] is None
    assert merit["kept_scales"] == [0.5, 0.5, 0.5]
    assert "answers" not in merit["runs"][0], "they are in evaluation.json"
    assert content["methods"]["joint:train.epochs=2"]["control"] is True
