"""Rows are added one at a time; the index is written a few times, and whatever was added is found."""

import json

import numpy as np
import pytest
from etils import epath

from merit_jax.gradients import store as module
from merit_jax.gradients.store import GradientStore, NewRow

INPUTS = {"theta0": "a"}


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "gradients")


def row(k, left, value=1.0):
    return NewRow(f"d{k}", f"digest {k} {value}", np.full(3, value + k, np.float32), {"datasets": 1}, left)


def test_the_index_is_written_a_few_times_for_many_rows(folder, monkeypatch):
    monkeypatch.setattr(module, "FEWEST", 4)
    written = []
    original = module.write_json
    monkeypatch.setattr(module, "write_json", lambda path, value: (written.append(path.name), original(path, value)))
    store = GradientStore(folder)
    for k in range(64):
        store.write(INPUTS, row(k, 63 - k))
    assert written.count("index.json") <= 7
    assert [path.name for path in folder.glob("*.json")] == ["index.json"]
    assert len(json.loads((folder / "index.json").read_text())["datasets"]) == 64
    assert store.rows(["d9"])[0][:].tolist() == [10.0] * 3


@pytest.mark.parametrize("added", [1, 3, 9])
def test_a_store_that_was_left_in_the_middle_has_every_row(folder, monkeypatch, added):
    monkeypatch.setattr(module, "FEWEST", 4)
    store = GradientStore(folder)
    for k in range(added):
        store.write(INPUTS, row(k, 20 - k))
    again = GradientStore(folder)
    assert sorted(again.read()["datasets"]) == [f"d{k}" for k in range(added)]
    assert again.norms(["d0"]).tolist() == pytest.approx([3**0.5])
    again.write(INPUTS, row(added, 0))
    assert len(json.loads((folder / "index.json").read_text())["datasets"]) == added + 1


def test_a_row_that_is_taken_again_replaces_the_former_also_before_the_index_is_written(folder):
    store = GradientStore(folder)
    store.write(INPUTS, row(0, 1))
    store.write(INPUTS, row(1, 0))
    again = GradientStore(folder)
    again.write(INPUTS, row(0, 5, value=7.0))
    for each in (again, GradientStore(folder)):
        assert each.read()["datasets"]["d0"]["digest"] == "digest 0 7.0"
        assert each.rows(["d0"])[0][:].tolist() == [7.0] * 3


def test_rows_from_other_inputs_leave_the_index(folder):
    GradientStore(folder).write(INPUTS, row(0, 5))
    store = GradientStore(folder)
    store.write({"theta0": "b"}, row(1, 1))
    assert list(store.read()["datasets"]) == ["d1"]
    store.write({"theta0": "b"}, row(2, 0))
    index = json.loads((folder / "index.json").read_text())
    assert sorted(index["datasets"]) == ["d1", "d2"]
    assert [path.name for path in folder.glob("*.json")] == ["index.json"]
