"""The tables of a pruning in the console, cell by cell."""

import pytest

from merit_jax.launch.console import pruning_tables, tables
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.paths import Workdir
from tests.launch.console.test_tables import cells
from tests.support import pruned_workdir


@pytest.fixture
def workdir(tmp_path):
    return Workdir.at(pruned_workdir.write(tmp_path / "pruned"))


def shown(workdir):
    """The tables by their title, and all that is printed between them."""
    with pruning_tables.console.capture() as capture, tables.console.capture() as scores:
        pruning_tables.print_pruning(workdir)
    return capture.get(), scores.get()


def test_choice_costs_and_curves_are_printed(workdir):
    printed, scores = shown(workdir)
    assert "4 of 8 attention heads (50.0 %) are removed, by hies with α = 0.5" in " ".join(printed.split())
    assert pruned_workdir.NOTE in " ".join(printed.split())
    assert "the merged model" not in printed
    _, costs, accuracy, loss = ("".join(part) for part in _split(printed))
    assert cells(costs)["key-value cache (bytes per token)"] == ["384", "192", "0.50"]
    assert cells(costs)["writing (tokens/s)"] == ["20.0", "30.0", "1.50"]
    assert "accuracy (%), mean over 1 suites; whole 75.0" in " ".join(accuracy.split())
    assert {key: [cell.replace("\u00a0", " ") for cell in row] for key, row in cells(accuracy).items()} == {
        "criterion": ["25.0 %", "50.0 %"],
        "HIES": ["70.0", "60.0"],
        "importance (HIS)": ["65.0", "50.0"],
        "random": ["50.0 ± 10.0", "40.0 ± 10.0"],
        "HIES, after recovery": ["75.0", "65.0"],
        "importance (HIS), after recovery": ["70.0", "55.0"],
        "random, after recovery": ["55.0 ± 10.0", "45.0 ± 10.0"],
    }
    assert cells(loss)["HIES"] == ["1.600", "1.800"]
    assert cells(scores)["distance from whole"] == ["", "1.250", "1.250", "1.250"]


def _split(printed):
    """What comes before the first table, then each table with its title."""
    parts = [[]]
    for line in printed.splitlines(keepends=True):
        if line.startswith(("Size and speed", "Heads removed")):
            parts.append([])
        parts[-1].append(line)
    return parts


def test_of_a_run_the_whole_model_is_said_to_be_the_merged_one(workdir):
    write_json(workdir.theta0, {"inputs": {"merged": "0"}, "fingerprint": read_json(workdir.theta0)["fingerprint"]})
    assert '"whole": the merged model.' in " ".join(shown(workdir)[0].split())


def test_what_is_not_there_is_not_printed(workdir, tmp_path):
    assert shown(Workdir.at(tmp_path / "other")) == ("", "")
    for name in ("costs", "curve", "evaluation"):
        (workdir.root / f"{name}.json").unlink()
    printed, scores = shown(workdir)
    assert printed.startswith("4 of 8 attention heads")
    assert ("Heads removed" in printed, scores) == (False, "")
