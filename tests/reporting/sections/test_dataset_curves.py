"""The curves of datasets are those of the log, averaged where it has more lines than a figure marks."""

import numpy as np
import pytest

from merit_jax.reporting.run_data import Branch, read_artifacts
from merit_jax.reporting.sections.dataset_curves import dataset_curves, dataset_table, training_curves
from merit_jax.reporting.sections.training import branch_table
from merit_jax.reporting.series import MOST_VERTICES
from merit_jax.workdir.paths import Workdir
from tests.support import example_workdir


def line(step, losses, counts, **more):
    return {"step": step, "loss": 1.0, "loss_by_dataset": losses, "count_by_dataset": counts, **more}


LOG = [
    {"step": 0, "held_out_loss": 3.0, "held_out_by_dataset": {"birds": 3.25}},
    line(10, {"copy": 2.0, "birds": 4.0}, {"copy": 10, "birds": 5}),
    line(20, {"copy": 1.0}, {"copy": 30}, held_out_loss=2.0, held_out_by_dataset={"birds": 2.25}),
]


@pytest.fixture
def artifacts(tmp_path):
    """Makes the artifacts of a run whose branches have these logs."""
    example_workdir.write(tmp_path)
    read = read_artifacts(Workdir.at(tmp_path), str(tmp_path))

    def make(*logs, done=None):
        return read._replace(joint=(), branches=tuple(Branch((), 0, 0, tuple(log), done) for log in logs))

    return make


def test_each_dataset_has_the_points_of_the_lines_that_have_it():
    birds, copy = training_curves(3, LOG)
    assert (birds.branch, birds.dataset, birds.steps, birds.losses) == (3, "birds", [10], [4.0])
    assert (copy.dataset, copy.steps, copy.losses) == ("copy", [10, 20], [2.0, 1.0])


def test_long_logs_are_averaged_by_their_tokens():
    rng = np.random.default_rng(0)
    losses, counts = rng.random(7 * MOST_VERTICES), rng.integers(1, 9, 7 * MOST_VERTICES)
    log = [line(k + 1, {"copy": losses[k]}, {"copy": int(counts[k])}) for k in range(len(losses))]
    (curve,) = training_curves(0, log)
    assert list(curve.steps) == list(range(7, 7 * MOST_VERTICES + 1, 7))
    assert curve.losses[1] == pytest.approx((losses * counts)[7:14].sum() / counts[7:14].sum())
    assert np.dot(curve.losses, counts.reshape(-1, 7).sum(axis=1)) == pytest.approx(np.dot(losses, counts))


def test_the_table_has_first_and_last_losses_and_leaves_open_what_was_not_measured(artifacts):
    table = dataset_table(artifacts(LOG), training_curves(0, LOG))
    assert table.rows == [
        ["birds", "branch 0", "4.000", "4.000", "3.250", "2.250"],
        ["copy", "branch 0", "2.000", "1.000", "", ""],
    ]


def test_logs_of_earlier_versions_have_no_such_parts(artifacts):
    assert list(dataset_curves(artifacts([{"step": 10, "loss": 1.0, "gradient_norm": 2.0}]))) == []


def test_a_branch_that_stopped_early_says_so(artifacts):
    done = {"steps": 20, "steps_taken": 50, "tokens": 7, "seconds": 1.0}
    assert branch_table(artifacts(LOG, done=done)).rows[0][1] == "20 (kept of 50)"
