"""Scores are read as they were written; those of an earlier version are refused in one sentence."""

import copy
import json

import pytest

from merit_jax.workdir.artifacts import write_json
from merit_jax.workdir.paths import Workdir
from merit_jax.workdir.scores import current_frontier, read_evaluation, read_frontier
from tests.support import example_workdir


@pytest.fixture
def workdir(tmp_path):
    return Workdir.at(tmp_path)


def test_what_was_written_is_read(workdir):
    write_json(workdir.evaluation, example_workdir.evaluation())
    write_json(workdir.frontier, example_workdir.frontier())
    assert read_evaluation(workdir) == example_workdir.evaluation()
    assert read_frontier(workdir) == example_workdir.frontier()


def without(content, *path):
    """A copy without one key of it."""
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return content


@pytest.mark.parametrize("path", [("questions",), ("models", "merged", "suites", "ocr", "correct")])
def test_an_evaluation_without_the_scores_of_questions_names_the_command(workdir, path):
    write_json(workdir.evaluation, without(example_workdir.evaluation(), *path))
    message = (
        r"evaluation\.json was written by an earlier version, without the scores of every question; repeat the command that "
        r"wrote it \(merit run or merit experiment\) with --overwrite to make it again"
    )
    with pytest.raises(ValueError, match=message):
        read_evaluation(workdir)


@pytest.mark.parametrize("key", ["choosing", "kept"])
def test_a_frontier_without_halves_names_the_command(workdir, key):
    write_json(workdir.frontier, without(example_workdir.frontier(), "models", "theta0", key))
    with pytest.raises(ValueError, match=r"frontier\.json was written by an earlier version, .* with --overwrite"):
        read_frontier(workdir)


@pytest.mark.parametrize("content", [{}, [], None, {"models": []}, {"models": {"theta0": 1}}])
def test_a_file_without_models_is_named(workdir, content):
    for path, read in ((workdir.evaluation, read_evaluation), (workdir.frontier, read_frontier)):
        path.write_text(json.dumps(content))
        with pytest.raises(
            ValueError, match=rf"{path.name} has no scores of models; delete it and run its stage again"
        ):
            read(workdir)


def test_a_missing_file_is_named(workdir):
    with pytest.raises(ValueError, match=r"frontier\.json is missing"):
        read_frontier(workdir)


SETTINGS = {"text": {"seed": 0}, "suites": {"ocr": "abc"}}


@pytest.fixture
def scored(workdir):
    """Writes both files with changes to the evaluation, and reads the frontier that goes with it."""

    def read(inputs=(), settings=(), merged=()):
        evaluation, frontier = example_workdir.evaluation(), example_workdir.frontier()
        evaluation["inputs"] |= {**SETTINGS, **dict(inputs)}
        evaluation["inputs"]["evaluate"] |= {"max_suite_records": 60, **dict(settings)}
        evaluation["models"]["merged"] |= dict(merged)
        frontier["inputs"] |= {**SETTINGS, "retained": ["desc*"], "max_suite_records": 60}
        write_json(workdir.evaluation, evaluation)
        write_json(workdir.frontier, frontier)
        return current_frontier(workdir)

    return read


def test_a_frontier_goes_with_the_evaluation_of_its_records(scored, workdir):
    assert scored()["models"] == example_workdir.frontier()["models"]
    workdir.evaluation.unlink()
    assert current_frontier(workdir)["models"] == example_workdir.frontier()["models"]
    workdir.frontier.unlink()
    assert current_frontier(workdir) is None


@pytest.mark.parametrize(
    ("inputs", "settings"),
    [
        ({"half": "all"}, {}),
        ({"text": {"seed": 1}}, {}),
        ({"suites": {"ocr": "abd"}}, {}),
        ({}, {"max_suite_records": 50}),
        ({}, {"retained": ["ocr"]}),
    ],
)
def test_a_frontier_that_was_left_behind_by_scores_on_other_records_is_not_shown(scored, inputs, settings):
    assert scored(inputs, settings) is None


def test_a_model_that_has_been_merged_anew_since_has_no_frontier(scored):
    assert scored(merged={"inputs": {"method": "ties"}})["models"].keys() == {*example_workdir.MODELS} - {"merged"}
