"""Where the models of a run went, among its datasets."""

import numpy as np
import pytest

from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.gradients.store import GradientStore
from merit_jax.pipeline.estimate_gradients import compressor
from merit_jax.pipeline.project_models import project_models
from merit_jax.workdir.artifacts import read_json
from tests.support import world


def gradients_of(run):
    return [row[:] for row in GradientStore(run.workdir.gradients).rows(run.names)]


def test_cosines_are_those_of_the_way_down_from_theta0_with_each_gradient(finished):
    theta0, merged = world.host(finished.theta0.leaves()), world.host(OrbaxLeaves(finished.workdir.merged_params))
    kept = compressor(finished)
    way = kept({path: theta0[path] - merged[path] for path in theta0}).astype(float)
    rows = [row.astype(float) for row in gradients_of(finished)]
    expected = [way @ row / np.linalg.norm(way) / np.linalg.norm(row) for row in rows]
    found = read_json(finished.workdir.projection)["cosines"]
    assert list(found) == ["theta0", "merged", "branch 0", "branch 1", "branch 2", "branch 3"]
    assert found["merged"] == pytest.approx(expected, abs=1e-5)
    assert found["theta0"] == [0.0] * len(finished.names)


def test_a_branch_goes_down_the_gradients_of_its_own_datasets(finished):
    found = read_json(finished.workdir.projection)["cosines"]
    branches = read_json(finished.workdir.partition)["branches"]
    for k, branch in enumerate(branches):
        own = {name for name, _, _ in branch["shares"]}
        cosines = dict(zip(finished.names, found[f"branch {k}"], strict=True))
        others = [value for name, value in cosines.items() if name not in own]
        assert np.mean([cosines[name] for name in own]) > np.mean(others)


def test_what_is_there_is_not_made_again(finished):
    assert not project_models(finished)
