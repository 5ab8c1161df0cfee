"""The tables that a run prints, cell by cell."""

import pytest

from merit_jax.launch.console import tables
from merit_jax.workdir.artifacts import write_json
from merit_jax.workdir.paths import Workdir


@pytest.fixture
def workdir(tmp_path):
    return Workdir.at(tmp_path)


def cells(printed):
    """The cells of every line of a table, those of its frame left out."""
    rows = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in printed.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) > 1}


def shown(show, workdir):
    with tables.console.capture() as capture:
        show(workdir)
    return capture.get()


def scores(accuracy, loss=None, records=25, metric="options"):
    correct = [accuracy] * records
    return {"loss": loss, "tokens": 9, "accuracy": accuracy, "records": records, "metric": metric, "correct": correct}


def evaluation(models, half="all"):
    return {"inputs": {"half": half}, "questions": {}, "models": models}


def entry(accuracies, displacement, **more):
    """A model's entry of two suites."""
    suites = dict(zip(("describe [a]", "count"), map(scores, accuracies), strict=True))
    return {"suites": suites, "suites_mean": {"accuracy": sum(accuracies) / 2}, "displacement": displacement, **more}


def test_suites_are_lines_and_models_columns(workdir):
    models = {
        "theta0": entry((0.8, 0.2), 0.0, retained=0.8, skill=0.2, mixture_loss=2.5),
        "joint:train.epochs=2": entry((0.64, 0.5), 1.25, retained=0.64, skill=0.5, mixture_loss=0.5),
    }
    write_json(workdir.evaluation, evaluation(models))
    printed = shown(tables.print_evaluation, workdir)
    assert "Held-out suites: accuracy (%)" in printed
    assert "Held-out loss" not in printed
    assert cells(printed) == {
        "suite": ["records", "theta0", "joint:train.epochs=2"],
        "describe [a]": ["25 options", "80.0", "64.0"],
        "count": ["25 options", "20.0", "50.0"],
        "mean": ["", "50.0", "57.0"],
        "standard error": ["", "± 5.7", "± 6.9"],  # sqrt(0.16 / 25 * 2) / 2; sqrt((0.2304 + 0.25) / 25) / 2
        "retained suites": ["", "80.0", "64.0"],
        "skill suites": ["", "20.0", "50.0"],
        "loss on the mixture (nats/token)": ["", "2.500", "0.500"],
        "distance from theta0": ["", "0.000", "1.250"],
    }


def test_scores_of_nought_are_shown(workdir):
    write_json(workdir.evaluation, evaluation({"theta0": entry((0.8, 0.0), 0.0, retained=0.8, skill=0.0)}))
    found = cells(shown(tables.print_evaluation, workdir))
    assert (found["skill suites"], found["distance from theta0"]) == (["", "0.0"], ["", "0.000"])


def test_the_half_that_is_reported_is_named(workdir):
    write_json(workdir.evaluation, evaluation({"theta0": entry((0.8, 0.2), 0.0)}, "reporting"))
    printed = " ".join(shown(tables.print_evaluation, workdir).split())
    assert "Held-out suites, reporting half: accuracy (%)" in printed


def held_out(loss, accuracy, displacement):
    return {
        "datasets": {"copy": scores(accuracy, loss, 16, "exact_match")},
        "mean": {"loss": loss, "accuracy": accuracy},
        "displacement": displacement,
    }


def test_held_out_records_show_loss_and_accuracy(workdir):
    models = {"theta0": held_out(2.5, 0.0, 0.0), "merged": held_out(1.25, 1.0, 0.5)}
    write_json(workdir.evaluation, evaluation(models))
    assert cells(shown(tables.print_evaluation, workdir)) == {
        "dataset": ["records", "theta0", "merged"],
        "copy": ["16 exact_match", "2.500   0.0", "1.250 100.0"],
        "mean": ["", "2.500   0.0", "1.250 100.0"],
        "standard error": ["", "± 0.0", "± 0.0"],
        "distance from theta0": ["", "0.000", "0.500"],
    }


def test_what_follows_both_tables_is_said_once(workdir):
    both = {"theta0": {**held_out(2.5, 0.5, 0.0), **entry((0.5, 0.5), 0.0, retained=None, skill=0.5)}}
    write_json(workdir.evaluation, evaluation(both))
    printed = shown(tables.print_evaluation, workdir)
    assert printed.count("skill suites") == 1
    assert printed.index("Held-out suites") < printed.index("skill suites")
    assert "retained suites" not in printed
    assert "loss on the mixture" not in printed


def line(kept, *points):
    """A model's entry, kept at the scale of one of its points."""
    names = ("scale", "retained", "skill")
    return {
        "points": points,
        "choosing": points,
        "kept": {**dict(zip(names, points[kept], strict=True)), "correct": {}},
    }


def test_the_frontier_has_a_line_for_each_scale_and_theta0_a_column(workdir):
    theta0 = [0.0, 0.8, 0.1]
    models = {
        "theta0": line(0, theta0),
        "joint": line(1, theta0, [0.5, 0.7, 0.375], [1.0, 0.2, 0.95]),
        "merged": line(0, theta0, [0.5, 0.75, 0.2], [1.0, 0.7, 0.4]),
    }
    write_json(workdir.frontier, {"inputs": {"frontier": {"retention": 0.9}}, "models": models})
    printed = shown(tables.print_frontier, workdir)
    assert cells(printed) == {
        "λ": ["theta0", "joint", "merged"],
        "0": ["80.0  10.0", "80.0  10.0", "80.0  10.0"],
        "0.5": ["", "70.0  37.5", "75.0  20.0"],
        "1": ["", "20.0  95.0", "70.0  40.0"],
        "skill at 90%": ["10.0 at λ = 0", "37.5 at λ = 0.5", "10.0 at λ = 0"],
        "retained there": ["80.0 (100 %)", "70.0 (88 %)", "80.0 (100 %)"],
    }
    assert "reporting half; λ is chosen on the other half" in " ".join(printed.split())


def test_scores_of_an_earlier_version_are_refused_with_the_command_that_makes_them_again(workdir):
    theta0 = entry((0.8, 0.2), 0.0)
    write_json(workdir.evaluation, {"inputs": {}, "models": {"theta0": theta0}})
    write_json(workdir.frontier, {"inputs": {}, "models": {"theta0": {"points": [[0.0, 0.8, 0.1]], "skill": 0.1}}})
    for show, name in ((tables.print_evaluation, "evaluation"), (tables.print_frontier, "frontier")):
        with pytest.raises(
            ValueError, match=rf"{name}\.json was written by an earlier version, .*merit run .*--overwrite"
        ):
            show(workdir)


def test_what_is_not_there_is_not_printed(workdir):
    for show in (tables.print_partition, tables.print_evaluation, tables.print_frontier):
        assert shown(show, workdir) == ""


def test_times_leave_out_what_took_no_second(workdir):
    write_json(workdir.times, {"mixture": 0.4, "train": 61.2, "evaluate": 9.6})
    printed = shown(tables.print_times, workdir)
    assert "Time: train 61 s, evaluate 10 s; 71 s in all." in printed
    assert f"Artifacts: {workdir.root}" in printed
