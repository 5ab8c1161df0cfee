"""Methods in rounds among others: equal tokens, a common theta0, and everything that follows the merge."""

import json

import numpy as np
import pytest

from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.launch.experiments import runner
from merit_jax.launch.experiments.run_config import run_config, run_round
from merit_jax.reporting.page import write_report
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir
from tests.support import world

pytestmark = pytest.mark.usefixtures("one_device")

ROUNDS = "random2:rounds.count=2,rounds.warm=0.25"


def test_methods_in_rounds_are_compared_at_equal_tokens(tmp_path, capsys):
    config = world.config(tmp_path, "merit1d", **{"mixture.max_held_out": 2})
    experiment = runner.Experiment(("joint", "random2", ROUNDS), (), (0,), ("displacement",))
    found = runner.run_experiment(config, tmp_path / "root", experiment, overwrite=False)
    tokens = {name: result.outcomes[0].tokens for name, result in found.items()}
    assert tokens["joint"] == tokens["random2"] == tokens[ROUNDS] > 0
    assert found[ROUNDS].outcomes[0].seconds > 0
    home = tmp_path / "root" / "seed-0" / "methods" / ROUNDS.replace(":", ",")
    assert sorted(folder.name for folder in (home / "rounds").iterdir()) == ["0", "1", "2"]
    scored = json.loads((tmp_path / "root" / "seed-0" / "evaluation.json").read_text())["models"]
    assert scored[ROUNDS]["displacement"] == pytest.approx(
        json.loads((home / "merged" / "merge.json").read_text())["displacement"]["merged"]
    )
    distances = json.loads((home / "diagnostics" / "displacement.json").read_text())["result"]
    assert distances
    unequal = runner.Experiment(("joint", f"{ROUNDS},train.epochs=2"), (), (0,))
    with pytest.raises(ValueError, match="the methods differ in budget"):
        runner.run_experiment(config, tmp_path / "root", unequal, overwrite=False)


def test_a_run_in_rounds_is_exported_and_evaluated_like_any_other(tmp_path):
    changes = {"rounds.count": 2, "mixture.max_held_out": 2, "baselines": ("joint", "wise")}
    config = world.config(tmp_path, "random2", **changes)
    first = run_round(config, str(tmp_path / "run"), 1, (), overwrite=False)
    fingerprint = read_json(first.workdir.branch_done(0))["fingerprint"]
    run = run_config(config, str(tmp_path / "run"), (), overwrite=False)
    assert read_json(first.workdir.branch_done(0))["fingerprint"] == fingerprint
    models = read_json(run.workdir.evaluation)["models"]
    assert set(models) == {"theta0", "joint", "wise", "merged"}
    assert models["wise"]["displacement"] == pytest.approx(models["merged"]["displacement"], rel=1e-3)
    leaves, written = world.host(OrbaxLeaves(run.workdir.merged_params)), world.exported(run.workdir.merged_hf)
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(written[path], leaf)
    card = (run.workdir.merged_hf / "README.md").read_text()
    assert "in the last of 2 rounds" in card
    html = write_report(run.workdir, "run").read_text()
    assert "In each round a branch sends" in html
    assert "trained in 2 rounds" in html
    assert "merit report --workdir=run/rounds/2" in html
    assert "--stages=partition" not in html
    last = write_report(Workdir.at(run.workdir.root / "rounds" / "2"), "run/rounds/2").read_text()
    assert "divided over 2 branches by random" in last
