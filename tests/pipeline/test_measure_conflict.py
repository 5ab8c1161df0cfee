"""The conflict stage with a matrix and without one, and what reads it afterwards."""

import logging

import numpy as np
import pytest
from etils import epath

from merit_jax import conflict
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.stages import run_stages
from merit_jax.reporting.run_data import read_artifacts
from merit_jax.reporting.sections.conflict import conflict as section
from merit_jax.workdir.artifacts import read_arrays
from merit_jax.workdir.paths import Workdir
from tests.support import world


@pytest.fixture
def without_matrix(finished, tmp_path, monkeypatch):
    """Makes the conflict and the partition of a run of some method again, as if C were too large."""
    monkeypatch.setattr(conflict, "forms_similarity", lambda *_: False)

    def make(method):
        run = world.copied(finished, tmp_path, method)
        for path in (run.workdir.conflict, run.workdir.partition):
            path.unlink()
        run_stages(run, ("conflict", "partition"))
        return run

    return make


def test_the_split_without_a_matrix_is_the_split_with_one(without_matrix, finished):
    run = without_matrix("merit2d")
    found, dense = (read_arrays(r.workdir.conflict) for r in (run, finished))
    assert "similarity" not in found
    np.testing.assert_allclose(found["scores"], dense["scores"], atol=1e-4)
    assert load_partition(run) == load_partition(finished)


def test_other_representations_need_no_matrix(without_matrix, finished, tmp_path, monkeypatch):
    run = without_matrix("raw2d")
    monkeypatch.undo()
    dense = world.copied(finished, tmp_path / "dense", "raw2d")
    dense.workdir.partition.unlink()
    run_stages(dense, ("partition",))
    assert load_partition(run) == load_partition(dense)


def test_a_method_that_needs_the_matrix_says_how_to_get_it(without_matrix):
    with pytest.raises(ValueError, match=r"raise conflict\.similarity_bytes, delete conflict\.npz"):
        without_matrix("conflict2")


def test_the_report_shows_the_axes_alone(without_matrix):
    root = epath.Path(without_matrix("merit2d").workdir.root)
    parts = section(read_artifacts(Workdir(root, root), "run")).parts
    assert "too many to keep" in parts[0].text
    assert [part.name for part in parts[1:]] == ["axes12", "axes13"]


@pytest.fixture
def of_rows(tmp_path, monkeypatch):
    """Makes the conflict and partition of datasets whose gradients are some numbers, with C or without it."""
    names = ("copy", "first", "last", "length", "upper", "vowel")

    def make(method, kinds, *, formed=True):
        root = tmp_path / f"{method}-{formed}"
        root.mkdir()
        world.mixture(root / "data", names[: len(kinds)])
        directions = np.random.default_rng(0).standard_normal((8, 40)).astype(np.float32)
        if not formed:
            monkeypatch.setattr(conflict, "forms_similarity", lambda *_: False)
        monkeypatch.setattr(
            "merit_jax.pipeline.estimate_gradients.gradient_rows", lambda *_, **__: (directions[kind] for kind in kinds)
        )
        run = world.run(root, "run", method)
        run_stages(run, ("mixture", "gradients", "conflict", "partition"))
        return run

    return make


def groups(run):
    """The datasets of each branch."""
    return [[share.dataset for share in branch.shares] for branch in load_partition(run).branches]


@pytest.mark.parametrize("formed", [True, False])
def test_datasets_that_are_all_alike_are_split_in_order_of_name_with_a_warning(of_rows, formed, caplog):
    with caplog.at_level(logging.WARNING, "merit_jax"):
        run = of_rows("merit2d", [0, 0, 0, 0], formed=formed)
    assert groups(run) == [["copy"], ["first"], ["last"], ["length"]]
    assert "datasets copy and first and last and length have the same gradient" in caplog.text
    assert "these 4 datasets have 0 conflict axes, and 4 groups are cut along 2" in caplog.text


@pytest.mark.parametrize("formed", [True, False])
def test_two_identical_datasets_of_four_do_not_stop_the_split(of_rows, formed, caplog):
    with caplog.at_level(logging.WARNING, "merit_jax"):
        run = of_rows("merit2d", [0, 1, 1, 2], formed=formed)
    assert sorted(groups(run)) == [["copy"], ["first"], ["last"], ["length"]]
    assert "datasets first and last have the same gradient" in caplog.text
    assert "conflict axes" not in caplog.text
    assert read_arrays(run.workdir.conflict)["same_as"].tolist() == [0, 1, 1, 3]


@pytest.mark.parametrize("reordered", [False, True])
def test_copies_whose_calibration_examples_differ_are_named(tmp_path, caplog, reordered):
    world.mixture(tmp_path / "data", ("copy", "first", "last"), rows=20)
    for part in ("train", "test"):
        lines = (tmp_path / "data" / f"copy.{part}.jsonl").read_text().splitlines()
        content = "\n".join(lines[:: -1 if reordered else 1]) + "\n"
        (tmp_path / "data" / f"other.{part}.jsonl").write_text(content)
    run = world.run(tmp_path, "run")
    with caplog.at_level(logging.WARNING, "merit_jax"):
        run_stages(run, ("gradients", "conflict"))
    assert "datasets copy and other are copies of the same data" in caplog.text
    arrays = read_arrays(run.workdir.conflict)
    assert arrays["names"].tolist() == ["copy", "first", "last", "other"]
    assert arrays["similarity"][0, 3] < 1 - 1e-3
    assert arrays["same_as"].tolist() == [0, 1, 2, 0]


def test_datasets_that_differ_warn_of_nothing(of_rows, caplog):
    with caplog.at_level(logging.WARNING, "merit_jax"):
        of_rows("merit2d", [0, 1, 2, 3])
    assert not caplog.records


@pytest.mark.parametrize("kinds", [[0, 1], [0, 0], [0]])
def test_fewer_datasets_than_groups_are_refused_as_such(of_rows, kinds):
    message = rf"groups = 4: median_split cannot make 4 non-empty groups of {len(kinds)} datasets; lower it"
    with pytest.raises(ValueError, match=message):
        of_rows("merit2d", kinds)


@pytest.mark.parametrize(("kinds", "parts"), [([0] * 5, ["conflict"]), ([0, 0, 1, 1, 1], ["conflict", "spectrum"])])
def test_the_report_names_duplicates_and_draws_the_axes_that_exist(of_rows, kinds, parts):
    root = epath.Path(of_rows("merit2d", kinds).workdir.root)
    found = section(read_artifacts(Workdir(root, root), "run")).parts
    assert [part.name for part in found[2:]] == parts
    assert (
        "Duplicates, which have the same gradient (cosine 1 to within 1e-6), files or training examples: copy and first"
        in found[1].text
    )
