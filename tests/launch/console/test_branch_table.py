"""The table of branches: a line for each, shown again when a state changes."""

import io

import pytest
from rich.console import Console

from merit_jax.launch.console import branch_table
from merit_jax.launch.console.branch_status import BranchStatus

WAITING = BranchStatus(0, "waiting", 0, None, None, None, "", 0, None)
TRAINING = BranchStatus(1, "training", 20, 60, 2.0, 50.0, "machine[1]", 2, 80.0)
STOPPED = TRAINING._replace(branch=2, state="stopped", seconds=None)
FINISHED = TRAINING._replace(branch=3, state="finished", seconds=None)


def test_the_table_has_a_line_for_each_branch():
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(branch_table.branch_table([WAITING, TRAINING, STOPPED, FINISHED], {2: "reason"}))
    text = console.export_text()
    for words in (
        ("waiting",),
        ("training", "20/60", "2.000", "50", "machine[1]", "0:01:20"),
        ("failed",),
        ("finished",),
    ):
        assert any(all(word in line for word in words) for line in text.splitlines()), (words, text)


def test_without_a_terminal_it_is_printed_whenever_a_state_changes(capsys):
    present, failed = [WAITING, TRAINING], {}
    with branch_table.live_table(lambda: present, failed) as show:
        for after in (TRAINING, TRAINING._replace(step=30), STOPPED._replace(branch=1)):
            present[1] = after
            show()
        failed[1] = "reason"
        show()
    assert capsys.readouterr().out.count("Branches") == 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03"), (90000, "25:00:00")]
)
def test_durations(seconds, text):
    assert branch_table.duration(seconds) == text
