"""What the live table says comes from the workdir's files."""

import io
import json

import pytest
from rich.console import Console

from launch.console.branch_status import branch_status, duration, seconds_left, table
from merit_jax.workdir.artifacts import write_json
from merit_jax.workdir.paths import Workdir

LINES = [
    {"step": 10, "loss": 2.5, "tokens": 1000, "tokens_per_second": 10.0},
    {"step": 20, "loss": 2.0, "tokens": 1000, "tokens_per_second": 50.0},
]


@pytest.fixture
def workdir(tmp_path):
    """Branch 0 waits, 1 trains in its third start, 2 was stopped, 3 is finished."""
    workdir = Workdir.at(tmp_path)
    for k, starts in ((1, 3), (2, 1), (3, 1)):
        write_json(workdir.branch_host(k), {"host": f"machine[{k}]", "starts": starts, "steps": 60})
        workdir.branch_metrics(k).write_text("".join(json.dumps(line) + "\n" for line in LINES))
    workdir.branch_lease(1).write_text("{}")
    write_json(workdir.branch_done(3), {})
    return workdir


def test_states_and_figures(workdir):
    found = [branch_status(workdir, k) for k in range(4)]
    assert [each.state for each in found] == ["waiting", "training", "stopped", "finished"]
    assert [each.restarts for each in found] == [0, 2, 0, 0]
    assert found[0] == (0, "waiting", 0, None, None, None, "", 0, None)
    assert found[1] == (1, "training", 20, 60, 2.0, 50.0, "machine[1]", 2, pytest.approx(80.0))


@pytest.mark.parametrize(
    ("lines", "steps", "seconds"),
    [
        (LINES, 60, 40 * 20 / 10),
        (LINES[:1], 60, 50 * 100 / 10),
        (LINES, 20, 0.0),
        ([], 60, None),
        (LINES, None, None),
        ([{**LINES[0], "tokens_per_second": 0.0}], 60, None),
    ],
)
def test_time_left_is_what_the_last_line_took_per_step_times_the_steps_to_come(lines, steps, seconds):
    assert seconds_left(lines, steps) == seconds


def test_the_table_has_a_line_for_each_branch(workdir):
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table([branch_status(workdir, k) for k in range(4)], {2: "why"}))
    text = console.export_text()
    for words in (
        ("waiting",),
        ("training", "20/60", "2.000", "50", "machine[1]", "0:01:20"),
        ("failed",),
        ("finished",),
    ):
        assert any(all(word in line for word in words) for line in text.splitlines()), (words, text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03"), (90000, "25:00:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_damaged_log_is_named(workdir):
    workdir.branch_metrics(1).write_text('{"step": 1, "lo')
    with pytest.raises(ValueError, match=r"1/metrics\.jsonl has a damaged line"):
        branch_status(workdir, 1)
