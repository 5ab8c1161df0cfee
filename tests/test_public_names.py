"""The names that the package offers are there, mean what their modules define, and load nothing that they do not need."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import merit_jax

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", merit_jax.__all__)
def test_every_public_name_is_that_of_its_module(name):
    found = getattr(merit_jax, name)
    home = importlib.import_module(f"merit_jax.{merit_jax._HOMES[name]}")
    assert found is getattr(home, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = merit_jax.nonsense


def test_packages_keep_offering_their_functions():
    from merit_jax import conflict, partition
    from merit_jax.merging import MERGERS

    names = ("cosine_similarity", "extend_similarity", "principal_axes")
    assert all(getattr(conflict, name) is getattr(merit_jax, name) for name in names)
    assert partition.PARTITIONERS is merit_jax.PARTITIONERS
    assert MERGERS is merit_jax.MERGERS


def test_the_method_runs_from_gradients_to_a_merge():
    from merit_jax import MERGERS, PARTITIONERS, cosine_similarity, principal_axes

    G = np.array([[1, 0.1], [1, -0.1], [-1, 0.1], [-1, -0.1]], np.float32)
    axes = principal_axes(cosine_similarity(G), rank=1)
    groups = PARTITIONERS["median_split"](axes.scores, np.array([10, 10, 10, 10]))
    assert groups[0] == groups[1] != groups[2] == groups[3]
    theta0, thetas = {"w": np.zeros(2, np.float32)}, [{"w": np.float32([1, 0])}, {"w": np.float32([0, 1])}]
    merged = MERGERS["token_weighted"](theta0, thetas, [0.75, 0.25])
    np.testing.assert_allclose(merged["w"], [0.75, 0.25])


def test_importing_the_package_loads_no_jax():
    code = "import sys, merit_jax; print([name for name in ('jax', 'numpy', 'optax') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
