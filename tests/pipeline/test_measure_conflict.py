"""The conflict stage with a matrix and without one, and what reads it afterwards."""

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
