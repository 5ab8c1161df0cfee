"""The map reads what experiments leave: every run, paired gains over joint training, and cosines from lengths."""

import json
import os
import re

import numpy as np
import pytest

from benchmarks import map_record, study_map
from benchmarks.map_record import (
    Cell,
    against_joint,
    branch_cosine,
    compact,
    compare,
    joined,
    read_cell,
    read_record,
    shares_of_gain,
)
from benchmarks.study_map import CELLS, experiment, measurement, rendering, run_apart, seeds_to_run, write
from merit_jax.advice.features import METHOD, method_features, mixture_features
from merit_jax.advice.observations import read_observations
from merit_jax.workdir.artifacts import write_arrays


def run(seed, skill, **changes):
    kept = {"kept_skill": skill, "kept_scale": 0.5, "kept_retained": 0.39, "interpolated_skill": skill}
    found = {"seed": seed, "retained": 0.4, "skill": 0.3, "mean": 0.35, **kept, "mixture_loss": 1.5}
    return {**found, "tokens": 10, "displacement": 1.0, "seconds": 2.0, "scores": {}, **changes}


@pytest.fixture
def root(tmp_path):
    """A root with one finished cell of two seeds."""
    cell = tmp_path / "s1-p0-well-e4"
    methods = {
        "theta0": [run(seed, 0.2) for seed in (0, 1)],
        "wise": [run(seed, None) for seed in (0, 1)],
        "joint": [run(0, 0.40), run(1, 0.50)],
        "random4": [run(0, 0.42), run(0, 0.46), run(1, 0.50)],
    }
    for seed in (0, 1):
        folder = cell / f"seed-{seed}"
        record = {"weighted_mean": True, "weights": [0.5, 0.5], "displacement": {"branches": [1.0, 1.0], "merged": 0.8}}
        (folder / "methods" / "random4" / "merged").mkdir(parents=True)
        (folder / "methods" / "random4" / "merged" / "merge.json").write_text(json.dumps(record))
        write_arrays(map_record.epath.Path(folder / "conflict.npz"), {}, similarity=np.array([[1, 0.25], [0.25, 1.0]]))
    (cell / "results.json").write_text(
        json.dumps({"methods": {name: {"runs": runs} for name, runs in methods.items()}})
    )
    return tmp_path


def test_a_name_is_read_back_and_another_is_refused():
    assert [Cell.parse(cell.name) for cell in CELLS] == list(CELLS)
    with pytest.raises(ValueError, match=r"as in s1-p0\.5-well-e4"):
        Cell.parse("s1-p1")


def test_the_commands_of_a_cell_have_its_knobs_and_theta0(tmp_path):
    cell = Cell(0.5, 1.0, "well", 4.0)
    assert rendering(cell, tmp_path)[-2:] == ["--shared=0.5", "--private=1"]
    words = experiment(cell, "theta0", "joint,merit2d", "0,2", tmp_path)
    assert {"--seeds=0,2", "--config.train.epochs=4.0", "--config.model.path=theta0"} <= set(words)


def test_every_seed_is_measured_as_advice_measures_a_users_mixture(tmp_path):
    cell, methods = Cell(0.5, 1.0, "well", 4.0), "joint,wise,random4:partition.core=0.25,merit2d"
    words = set(measurement(cell, "theta0", methods, "2", tmp_path, pilot=0.05))
    assert {
        "merit_jax.launch.advise",
        f"--workdir={tmp_path}/s0.5-p1-well-e4/seed-2",
        "--config.seed=2",
        "--pilot=0.05",
    } <= words
    assert "--methods=joint,random4:partition.core=0.25,merit2d" in words
    trained = set(experiment(cell, "theta0", methods, "0,2", tmp_path))
    assert {word for word in trained if word.startswith("--config")} <= words


@pytest.mark.parametrize("jobs", [1, 2, 99])
def test_every_command_runs_on_cores_of_its_own_and_failures_are_named(tmp_path, jobs):
    where = "import os, sys; open(sys.argv[1], 'w').write(repr(sorted(os.sched_getaffinity(0))))"
    commands = {name: ["-c", where, str(tmp_path / name)] for name in ("a", "b", "c")} | {
        "bad": ["-c", "raise SystemExit(3)"]
    }
    before, finished = os.sched_getaffinity(0), []
    assert run_apart(commands, jobs, lambda: finished.append(None)) == ["bad"]
    assert len(finished) == 3
    assert os.sched_getaffinity(0) == before
    used = {tuple(json.loads((tmp_path / name).read_text())) for name in "abc"}
    assert all(set(cores) <= before and len(cores) <= -(-len(before) // min(jobs, len(before))) for cores in used)


def test_a_cell_has_its_runs_and_cosines(root):
    found = read_cell(Cell.parse("s1-p0-well-e4"), root)
    assert found["gradient_cosine"] == {"0": 0.25, "1": 0.25}
    assert found["branch_cosine"]["random4"] == pytest.approx({"0": 0.28, "1": 0.28})
    assert found["measured"] == {}
    assert [each["interpolated_skill"] for each in found["methods"]["joint"]] == [0.40, 0.50]


def test_a_cell_has_what_advice_measured_and_a_forecast_reads_it(root):
    random4 = method_features(branches=4, by_dataset=True, by_conflict=False, core=0.0, agreement=0.4)
    advice = {
        "features": mixture_features(
            shared=0.2, axes=0.4, reliability=0.8, loss=2.0, steps=300, passes=4.0, datasets=32, parameters=650_000
        ),
        "candidates": {"joint": {"features": dict.fromkeys(METHOD, 0.0)}, "random4": {"features": random4}},
        "forecasts": {},
    }
    for seed in (0, 1):
        (root / "s1-p0-well-e4" / f"seed-{seed}" / "advice.json").write_text(json.dumps(advice))
    found = read_cell(Cell.parse("s1-p0-well-e4"), root)
    assert (found["world"], found["cell"]) == ("s1-p0", "s1-p0-well-e4")
    assert found["measured"]["1"]["mixture"] == advice["features"]
    rows = read_observations([found])
    assert [(row.seed, row.method, round(row.gain, 6)) for row in rows] == [(0, "random4", 4.0), (1, "random4", 0.0)]


def test_gains_are_paired_by_seed_and_partitions_of_a_seed_count_once(root):
    rows = {row["method"]: row for row in against_joint([read_cell(Cell.parse("s1-p0-well-e4"), root)])}
    assert rows["random4"]["gain"] == pytest.approx(2.0)
    assert rows["random4"]["error"] == pytest.approx(2.0)
    assert rows["theta0"]["gain"] == pytest.approx(-25.0)
    assert rows["random4"]["joint"] == pytest.approx(45.0)
    assert not {"joint", "wise"} & rows.keys()  # WiSE has joint training's frontier


def test_results_of_an_earlier_version_are_refused_with_the_way_out(root):
    path = root / "s1-p0-well-e4" / "results.json"
    path.write_text(path.read_text().replace("interpolated_skill", "other"))
    with pytest.raises(ValueError, match=r"s1-p0-well-e4/results\.json has no interpolated_skill, .* delete it"):
        read_cell(Cell.parse("s1-p0-well-e4"), root)


def test_a_single_seed_has_no_error(root):
    cell = read_cell(Cell.parse("s1-p0-well-e4"), root)
    cell["methods"] = {name: runs[:1] for name, runs in cell["methods"].items()}
    assert {row["error"] for row in against_joint([cell])} == {None}
    assert re.search(r"\| \+2\.0 +\|", study_map.tables([cell]))


def test_a_record_is_completed_by_seeds_and_methods(root):
    found = read_cell(Cell.parse("s1-p0-well-e4"), root)
    known = json.loads(json.dumps(found))
    known["methods"]["joint"] = [run(0, 0.99), run(7, 0.10)]
    known["methods"]["merit2d"] = [run(7, 0.20)]
    known["gradient_cosine"], known["measured"] = {"7": 0.5}, {"7": {}}
    both = joined(known, found)
    assert [(each["seed"], each["interpolated_skill"]) for each in both["methods"]["joint"]] == [
        (0, 0.4),
        (1, 0.5),
        (7, 0.1),
    ]
    assert [each["seed"] for each in both["methods"]["merit2d"]] == [7]
    assert both["gradient_cosine"] == {"0": 0.25, "1": 0.25, "7": 0.5}
    assert joined(None, found) == found
    assert seeds_to_run(Cell(1, 0, "well", 4), both, "joint,merit2d", "0,7,8") == "0,8"
    assert seeds_to_run(Cell(1, 0, "well", 4), None, "joint", "0,7") == "0,7"


def test_a_record_is_read_as_it_was_written(root, tmp_path):
    found = [read_cell(Cell.parse("s1-p0-well-e4"), root) | {"branch_cosine": {"random4": {"0": 0.28}}}]
    (tmp_path / "record.json").write_text(compact(found))
    assert read_record(tmp_path / "record.json") == found
    assert max(map(len, compact(found).splitlines())) < 400
    assert read_record(tmp_path / "none.json") == read_record(None) == []


def test_a_merge_keeps_a_share_of_what_joint_training_gains(root):
    cell = read_cell(Cell.parse("s1-p0-well-e4"), root)
    (row,) = shares_of_gain([cell])
    assert (row["method"], row["cosine"]) == ("random4", pytest.approx(0.28))
    assert row["share"] == pytest.approx(100 * (0.47 - 0.2) / (0.45 - 0.2))
    del cell["branch_cosine"]["random4"]["1"]
    (row,) = shares_of_gain([cell])
    assert row["share"] == pytest.approx(100 * (0.44 - 0.2) / (0.40 - 0.2))
    cell["methods"]["theta0"] = [run(seed, 0.44) for seed in (0, 1)]
    assert shares_of_gain([cell]) == []  # nothing that joint training learns


def test_methods_are_compared_over_cells_by_seed_and_corrected_for_number(root):
    cell = read_cell(Cell.parse("s1-p0-well-e4"), root)
    other = json.loads(json.dumps(cell)) | {"cell": "s1-p1-well-e4"}
    other["methods"]["random4"] = [run(0, 0.60), run(2, 0.90)]
    first, second = compare([cell, other], [("random4", "joint"), ("random4", "theta0")])
    assert (first.cells, first.result.n) == (2, 3)
    assert first.result.difference == pytest.approx((4 + 0 + 20) / 3)
    assert first.error == pytest.approx(np.std([4, 0, 20], ddof=1) / 3**0.5)
    assert (first.result.p, second.result.p) == (0.5, 0.25)  # two-sided, of two and of three differences
    assert (first.result.holm, second.result.holm) == (0.5, 0.5)
    (opposite,) = compare([cell, other], [("theta0", "random4")])
    assert (opposite.result.difference, opposite.result.p) == (-second.result.difference, 0.25)
    assert compare([cell], [("random4", "merit2d")]) == []


def test_the_cosine_of_task_vectors_follows_from_their_lengths():
    vectors = np.random.default_rng(0).standard_normal((3, 50))
    weights, lengths = np.array([0.5, 0.3, 0.2]), np.linalg.norm(vectors, axis=1)
    pairs = (weights * lengths)[:, None] * (weights * lengths)
    apart = ~np.eye(3, dtype=bool)
    expected = (weights @ vectors @ vectors.T @ weights - np.diag(pairs).sum()) / pairs[apart].sum()
    lengths_of = {"branches": lengths.tolist(), "merged": float(np.linalg.norm(weights @ vectors))}
    record = {"weighted_mean": True, "weights": weights.tolist(), "displacement": lengths_of}
    assert branch_cosine(record) == pytest.approx(expected)
    assert branch_cosine({**record, "weighted_mean": False}) is None
    assert branch_cosine({**record, "weights": [1.0]}) is None


def test_the_map_is_written_with_table_and_picture(root):
    pytest.importorskip("vl_convert")
    write(root, {"s0-p0-little-e1": read_cell(Cell.parse("s1-p0-well-e4"), root) | Cell(0, 0, "little", 1)._asdict()})
    assert "| s0-p0-little-e1 |" in (root / "map.md").read_text()
    assert "| s1-p0-well-e4 |" in (root / "map.md").read_text()
    assert "+2.0 ± 2.0" in (root / "map.md").read_text()
    for name in study_map.PICTURES:
        assert (root / name).read_bytes().startswith(b"\x89PNG")
    assert [cell["forms"] for cell in json.loads((root / "map.json").read_text())] == ["well", "little"]
