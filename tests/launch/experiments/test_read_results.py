"""Results are read from the artifacts as they are: scores, answers by question, and the chosen scale."""

import pytest
from etils import epath

from merit_jax.configs import common
from merit_jax.launch.experiments.methods import Comparison, PlannedRun
from merit_jax.launch.experiments.read_results import read_results
from merit_jax.workdir.artifacts import write_json
from merit_jax.workdir.paths import Workdir

QUESTIONS = {"old_a": ["q1", "q2"], "new": ["q3", "q4", "q5"]}


def scored(**correct):
    return {suite: {"accuracy": sum(given) / len(given), "correct": given} for suite, given in correct.items()}


def entry(retained, skill, **correct):
    return {
        "suites": scored(**correct),
        "suites_mean": {"accuracy": (retained + skill) / 2},
        "retained": retained,
        "skill": skill,
        "displacement": 2.0,
        "mixture_loss": 1.5,
    }


EVALUATION = {
    "inputs": {"half": "reporting"},
    "questions": QUESTIONS,
    "models": {
        "theta0": entry(1.0, 0.0, old_a=[1.0, 1.0], new=[0.0, 0.0, 0.0]),
        "joint": entry(0.25, 1.0, old_a=[0.5, 0.0], new=[1.0, 1.0, 1.0]),
        "wise": entry(1.0, 1 / 3, old_a=[1.0, 1.0], new=[0.0, 0.0, 1.0]),
    },
}
FRONTIER = {
    "models": {
        "theta0": {
            "points": [[0.0, 1.0, 0.0]],
            "choosing": [[0.0, 1.0, 0.0]],
            "kept": {"scale": 0.0, "retained": 1.0, "skill": 0.0, "correct": {"old_a": [1, 1], "new": [0, 0, 0]}},
        },
        "joint": {
            "points": [[0.0, 1.0, 0.0], [0.5, 1.0, 1 / 3], [1.0, 0.25, 1.0]],
            "choosing": [[0.0, 1.0, 0.0], [0.5, 1.0, 0.5], [1.0, 0.5, 1.0]],
            "kept": {"scale": 0.5, "retained": 1.0, "skill": 1 / 3, "correct": {"old_a": [1, 1], "new": [0, 1, 0]}},
        },
    }
}


@pytest.fixture
def read(tmp_path):
    """Reads the results of two methods of one seed, from the given artifacts."""
    workdir = Workdir.at(tmp_path)
    config = common.get_config().unlock()
    config.seed, config.evaluate.retained = 7, ("old_*",)
    joint = common.with_method(common.get_config().unlock(), "joint")
    merged = {name: PlannedRun(joint, epath.Path(tmp_path / name)) for name in ("joint", "wise")}
    comparison = Comparison({"joint": merged["joint"]}, merged, {"joint": "joint", "wise": "joint"})
    for task in merged.values():
        write_json(Workdir(task.root, task.root).merge_record, {"tokens": [30, 12]})
    write_json(epath.Path(tmp_path / "joint" / "branches" / "0" / "done.json"), {"seconds": 3.0})

    def reader(evaluation, frontier=None):
        write_json(workdir.evaluation, evaluation)
        if frontier:
            write_json(workdir.frontier, frontier)
        return {run.variant: run for run in read_results(config, workdir, comparison)}

    return reader


def test_a_run_has_its_scores_and_answers_by_question(read):
    found = read(EVALUATION, FRONTIER)
    assert list(found) == ["theta0", "joint", "wise"]
    joint = found["joint"]
    assert (joint.seed, joint.mean, joint.retained, joint.skill) == (7, 0.625, 0.25, 1.0)
    assert joint.answers == {"old_a": {"q1": 0.5, "q2": 0.0}, "new": {"q3": 1.0, "q4": 1.0, "q5": 1.0}}
    assert (joint.tokens, joint.seconds, joint.mixture_loss, joint.displacement) == (42, 3.0, 1.5, 2.0)
    assert found["theta0"].tokens == 0


def test_a_run_has_the_chosen_scale_and_its_scores_there(read):
    found = read(EVALUATION, FRONTIER)
    joint, wise = found["joint"], found["wise"]
    assert (joint.kept_scale, joint.kept_retained, joint.kept_skill) == (0.5, 1.0, 1 / 3)
    assert joint.kept_answers["new"] == {"q3": 0, "q4": 1, "q5": 0}
    assert joint.kept_skill_answers() == {"new": joint.kept_answers["new"]}
    assert joint.points[1] == (0.5, 1.0, 1 / 3)
    place = 0.5 + 0.5 * 0.05 / 0.625  # the mean of both halves falls from 1 to 0.375
    assert joint.interpolated_skill == pytest.approx(5 / 12 + (place - 0.5) / 0.5 * (1 - 5 / 12))
    assert (found["theta0"].interpolated_skill, wise.interpolated_skill) == (0.0, None)
    assert (found["theta0"].kept_scale, found["theta0"].kept_skill) == (0.0, 0.0)
    assert (wise.kept_skill, wise.kept_scale, wise.kept_retained, wise.kept_answers, wise.points) == (
        None,
        None,
        None,
        {},
        (),
    )


def test_a_frontier_of_other_records_than_the_scores_is_left_out(read):
    found = read({**EVALUATION, "inputs": {"half": "all"}}, FRONTIER)
    assert [run.kept_skill for run in found.values()] == [None] * 3
    assert found["joint"].mean == 0.625


def test_without_suites_the_answers_are_of_the_datasets(read):
    models = {
        name: {"datasets": scored(new=[1.0, 0.0, 0.0]), "mean": {"accuracy": 1 / 3, "loss": 2.0}, "displacement": 1.0}
        for name in ("theta0", "joint", "wise")
    }
    found = read({**EVALUATION, "models": models})
    assert found["joint"].answers == {"new": {"q3": 1.0, "q4": 0.0, "q5": 0.0}}
    assert (found["joint"].skill_suites, found["joint"].kept_skill, found["joint"].loss) == ((), None, 2.0)


def test_artifacts_of_an_earlier_version_are_refused_with_the_way_out(read):
    with pytest.raises(ValueError, match=r"evaluation\.json .* an earlier version.*--overwrite"):
        read({key: value for key, value in EVALUATION.items() if key != "questions"}, FRONTIER)
    old = {"models": {name: {"points": line["points"], "skill": 0.5} for name, line in FRONTIER["models"].items()}}
    with pytest.raises(ValueError, match=r"frontier\.json .* an earlier version.*--overwrite"):
        read(EVALUATION, old)
