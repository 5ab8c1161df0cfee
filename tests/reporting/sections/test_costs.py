"""The costs of a run in rounds: steps and tokens of each round, and what is sent."""

import json

from merit_jax.reporting.blocks import Table, Text
from merit_jax.reporting.run_data import read_artifacts
from merit_jax.reporting.sections.costs import costs
from merit_jax.workdir.paths import Workdir
from tests.support import example_workdir

ROUNDS = {
    "trained": [
        {"round": 0, "steps": [9], "tokens": [1200], "all_tokens": [2000]},
        {"round": 1, "steps": [6, 5], "tokens": [800, 700], "all_tokens": [900, 900]},
    ],
    "bytes": {
        "up_per_round": 4 * 10**9,
        "down_per_round": 4 * 10**9,
        "up": 8 * 10**9,
        "down": 4 * 10**9,
        "joint_per_step": 4 * 10**9,
        "joint": 8 * 10**10,
    },
}


def section(root):
    return costs(read_artifacts(Workdir.at(root), "DIR"))


def test_rounds_have_a_table_and_their_traffic(tmp_path):
    root = example_workdir.write(tmp_path / "run", diagnostics=False)
    assert [part.caption for part in section(root).parts if isinstance(part, Table)] == ["Stages"]
    record = json.loads((root / "merged" / "merge.json").read_text())
    record.pop("sha256", None)
    (root / "merged" / "merge.json").write_text(json.dumps({**record, "rounds": ROUNDS}))
    parts = section(root).parts
    table = next(part for part in parts if isinstance(part, Table) and part.caption == "Rounds")
    assert table.rows == [["warm start", "1", "9", "1,200"], ["1", "2", "11", "1,500"]]
    (words,) = (part.text for part in parts if isinstance(part, Text))
    assert "sends 4.0 GB and gets as much at the start of the next one: 8.0 GB and 4.0 GB in all" in words
    assert "4.0 GB in every step, 80.0 GB in as many steps" in words
