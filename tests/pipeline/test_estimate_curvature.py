"""The split by curvature: products are exact, kept one by one, made where they are asked for, and compared before use."""

from pathlib import Path

import jax
import numpy as np
import pytest

from merit_jax import conflict
from merit_jax.core import tree
from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.hessian import Objective
from merit_jax.gradients.store import GradientStore
from merit_jax.launch.wiring import open_run
from merit_jax.partition import PARTITIONERS
from merit_jax.pipeline import estimate_curvature
from merit_jax.pipeline.calibration import calibration_batches
from merit_jax.pipeline.estimate_curvature import MatrixBatches, curvature_similarity
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.checksums import fingerprint
from tests.support import world

STAGES = ("mixture", "gradients", "conflict", "curvature", "partition")


@pytest.fixture(scope="module")
def curved(finished, tmp_path_factory):
    """A run split by curvature; not to be written to."""
    root = tmp_path_factory.mktemp("curved")
    run = world.copied(finished, root, "curvature2d", overwrite=True, **{"gradients.curvature_examples": 2})
    run_stages(run, STAGES)
    return run


def again(curved, tmp_path, method="curvature2d", **changes):
    return world.copied(curved, tmp_path, method, **{"gradients.curvature_examples": 2, **changes})


def row_file(run, name):
    return Path(run.workdir.curvature / f"{fingerprint(name)[:16]}.npy")


def own_predictions(model):
    """Cross-entropy against the model's own predictions: at these parameters its Hessian is the Gauss-Newton matrix."""

    def loss(params, batch):
        logits = model.unembed(params, model.hidden(params, batch))
        each = -(jax.lax.stop_gradient(jax.nn.softmax(logits)) * jax.nn.log_softmax(logits)).sum(-1)
        return (batch.weights * each).sum(-1), batch.weights.sum(-1)

    return loss


@pytest.fixture(scope="module")
def exact(curved):
    """M from whole gradients, by the derivative of a gradient instead of a push and a pull."""
    leaves, frozen = tree.split(curved.params, (".*",))
    own = [
        Objective(curved.loss_fn, frozen, list(calibration_batches(curved, dataset)), "example")
        for dataset in curved.datasets
    ]
    matrix = Objective(own_predictions(curved.model), frozen, list(MatrixBatches(curved)), "example")
    gradients = [hessian.gradient(objective, leaves) for objective in own]
    products = [hessian.product(matrix, leaves, gradient) for gradient in gradients]
    return np.array([[float(tree.dot(g, h)) for h in products] for g in gradients])


def test_the_sketched_matrix_is_the_exact_one(curved, exact):
    scale = np.sqrt(exact.diagonal())
    np.testing.assert_allclose(exact, exact.T, rtol=1e-3)
    found = curvature_similarity(curved)
    np.testing.assert_allclose(found, exact / scale[:, None] / scale, atol=0.01)
    assert np.abs(found - np.asarray(conflict.cosine_similarity(np.stack(rows_of(curved, "gradients"))))).max() > 0.05


def rows_of(run, kind="curvature"):
    return [row[:] for row in GradientStore(run.workdir.shared / kind).rows(run.names)]


def test_the_groups_are_those_of_its_principal_axes(curved, exact):
    scale = np.sqrt(exact.diagonal())
    axes = conflict.principal_axes(np.float32(exact / scale[:, None] / scale), 2)
    groups = PARTITIONERS["median_split"](np.asarray(axes.scores), np.array(curved.samples))
    owner = {share.dataset: k for k, branch in enumerate(load_partition(curved).branches) for share in branch.shares}
    assert [owner[name] for name in curved.names] == groups.tolist()
    assert read_json(curved.workdir.partition)["inputs"]["representation"] == {
        "similarity": "curvature",
        "centring": "columns",
        "curvature": {"matrix": "gauss_newton", "examples": 2},
    }


def test_its_matrix_is_of_as_many_examples_of_each_dataset_as_said(curved):
    examples = MatrixBatches(curved)
    assert len(examples) == 2 * len(curved.names)
    assert sum(int((batch.weights.sum(1) > 0).sum()) for batch in examples) == len(examples)
    assert read_json(curved.workdir.curvature_index)["inputs"]["curvature"]["examples"] == 2


def test_centring_is_that_of_the_config(curved, tmp_path):
    run = again(curved, tmp_path)
    with run.config.unlocked():
        run.config.conflict.centring = "double"
        run.config.partition.groups = 2
    run.workdir.partition.unlink()
    run_stages(run, ("partition",))
    scores = np.asarray(conflict.principal_axes(curvature_similarity(run), 1, "double").scores)
    groups = PARTITIONERS["median_split"](scores, np.array(run.samples))
    owner = {share.dataset: k for k, branch in enumerate(load_partition(run).branches) for share in branch.shares}
    assert [owner[name] for name in run.names] == groups.tolist()


def test_a_half_built_store_is_completed_with_the_same_row(curved, tmp_path, monkeypatch):
    run = again(curved, tmp_path)
    index = read_json(run.workdir.curvature_index)
    del index["datasets"]["length"]
    write_json(run.workdir.curvature_index, index)
    row_file(run, "length").unlink()
    with pytest.raises(
        ValueError, match=r"no curvature product of dataset 'length' in .*/curvature; run --stages=curvature first"
    ):
        curvature_similarity(run)
    made, product = [], estimate_curvature.gauss_newton_product
    monkeypatch.setattr(estimate_curvature, "gauss_newton_product", lambda *a: made.append(1) or product(*a))
    assert run_stages(run, ("curvature",))
    assert made == [1]
    np.testing.assert_array_equal(rows_of(run), rows_of(curved))
    assert not run_stages(run, STAGES[3:])
    assert made == [1]


def test_other_examples_in_the_matrix_are_refused(curved, tmp_path):
    other = again(curved, tmp_path, **{"gradients.curvature_examples": 3})
    for stage, file in (("curvature", r"curvature/index\.json"), ("partition", r"partition\.json")):
        with pytest.raises(ValueError, match=rf"{file} was made from other inputs: .*curvature\.examples: 2 -> 3"):
            run_stages(other, (stage,))
    other.workdir.partition.unlink()
    with pytest.raises(ValueError, match=r"curvature/index\.json was made from other inputs: .*--stages=curvature"):
        run_stages(other, ("partition",))


def test_another_dataset_in_the_mixture_is_another_matrix(curved, tmp_path):
    five = tuple(name for name in curved.names if name != "length")
    with pytest.raises(ValueError, match=r"curvature/index\.json was made from other inputs: datasets\.length: "):
        run_stages(again(curved, tmp_path, **{"mixture.include": five}), ("curvature",))


def test_gradients_come_first(curved, tmp_path):
    run = again(curved, tmp_path)
    for path in (run.workdir.gradient_index, run.workdir.curvature_index, run.workdir.partition):
        path.unlink()
    for stage in ("curvature", "partition"):
        with pytest.raises(ValueError, match=r"index\.json is missing; run merit run --stages=gradients first"):
            run_stages(run, (stage,))
    assert not run.workdir.curvature_index.exists()


def test_a_damaged_product_is_named(curved, tmp_path):
    run = again(curved, tmp_path)
    np.save(row_file(run, "copy"), 2 * np.load(row_file(run, "copy")))
    run.workdir.partition.unlink()
    with pytest.raises(ValueError, match=r"\(dataset 'copy'\) does not hold the curvature product that was written"):
        run_stages(run, ("partition",))


def test_a_zero_product_names_its_dataset(curved, tmp_path, monkeypatch):
    run = again(curved, tmp_path)
    run.workdir.curvature.rmtree()
    zeros = lambda matrix, leaves, vector: jax.tree.map(np.zeros_like, vector)  # noqa: E731
    monkeypatch.setattr(estimate_curvature, "gauss_newton_product", zeros)
    with pytest.raises(ValueError, match="dataset 'copy': the Gauss-Newton matrix times its gradient is zero"):
        run_stages(run, ("curvature",))


def test_other_methods_make_no_products(finished, curved, tmp_path):
    assert not finished.workdir.curvature.exists()
    other = again(curved, tmp_path, "random4")
    assert not run_stages(other, ("curvature",))
    assert not estimate_curvature.uses_curvature(world.config(Path(curved.workdir.root).parent, "raw2d"))


def test_eight_devices_make_the_same_products(curved, tmp_path):
    again(curved, tmp_path)
    root = Path(curved.workdir.root)
    changes = {"gradients.curvature_examples": 2, "mesh.fsdp": 4, "mesh.tensor": 2}
    run = open_run.open_run(world.config(tmp_path, "curvature2d", **changes), tmp_path / root.name)
    assert run.mesh.size == 8
    run.workdir.curvature.rmtree()
    run_stages(run, ("curvature",))
    for row, alone in zip(rows_of(run), rows_of(curved), strict=True):
        np.testing.assert_allclose(row, alone, atol=2e-4 * np.linalg.norm(alone))
    np.testing.assert_allclose(curvature_similarity(run), curvature_similarity(curved), atol=1e-3)
