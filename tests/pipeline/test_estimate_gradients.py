"""The gradient store grows by what is missing, and says which file is damaged."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from merit_jax import conflict
from merit_jax.gradients.store import GradientStore
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import read_arrays, read_json, write_json
from merit_jax.workdir.checksums import fingerprint
from tests.support import world


def gradients_of(run):
    return [row[:] for row in GradientStore(run.workdir.gradients).rows(run.names)]


FIVE = sorted(name for name in list(world.TASKS)[:6] if name != "length")


def row_file(run, name):
    return Path(run.workdir.gradients / f"{fingerprint(name)[:16]}.npy")


def without(run, name):
    """The store as a killed run would have left it: without one dataset."""
    index = read_json(run.workdir.gradient_index)
    del index["datasets"][name]
    write_json(run.workdir.gradient_index, index)
    row_file(run, name).unlink()


def test_a_half_built_store_is_completed_with_the_same_row(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    without(run, "length")
    kept = row_file(run, "copy").stat().st_mtime_ns
    run_stages(run, ("gradients",))
    assert row_file(run, "copy").stat().st_mtime_ns == kept
    np.testing.assert_array_equal(gradients_of(run), gradients_of(finished))


def test_a_new_dataset_costs_only_its_own_row(finished, tmp_path, compiled):
    root = world.beside(finished, tmp_path)
    old = world.run(root, "run", **{"mixture.include": tuple(FIVE)})
    run_stages(old, ("mixture", "gradients", "conflict", "partition"))
    before = {name: row_file(old, name).stat().st_mtime_ns for name in FIVE}
    part = read_arrays(old.workdir.conflict)["similarity"]
    new = world.run(root, "run")
    run_stages(new, ("gradients", "conflict"))
    assert {name: row_file(new, name).stat().st_mtime_ns for name in FIVE} == before
    whole, scratch = (read_arrays(run.workdir.conflict) for run in (new, finished))
    assert whole["names"].tolist() == finished.names
    np.testing.assert_allclose(whole["similarity"], scratch["similarity"], atol=1e-5)
    np.testing.assert_allclose(whole["scores"], scratch["scores"], atol=1e-4)
    places = [finished.names.index(name) for name in FIVE]
    assert whole["similarity"][np.ix_(places, places)].tobytes() == part.tobytes()
    with pytest.raises(
        ValueError, match=r"partition\.json was made from other inputs: .*datasets\.length: nothing -> "
    ):
        run_stages(new, ("partition",))


def test_datasets_side_by_side_give_the_same_rows_and_the_store_says_how_many(finished, tmp_path, compiled):
    root = world.beside(finished, tmp_path)
    run = world.run(root, "run", **{"gradients.datasets_per_step_bytes": 2**34})
    run_stages(run, ("mixture", "gradients"))
    at_once = read_json(run.workdir.gradient_index)["at_once"]
    assert at_once["datasets"] == len(run.names)
    assert "bytes of a device" in at_once["reason"]
    assert read_json(finished.workdir.gradient_index)["at_once"]["datasets"] == 1
    for row, alone in zip(gradients_of(run), gradients_of(finished), strict=True):
        np.testing.assert_allclose(row, alone, rtol=1e-3, atol=1e-5)


def test_the_stored_similarity_is_that_of_the_stored_gradients(finished):
    rows = np.stack(gradients_of(finished)).astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    arrays = read_arrays(finished.workdir.conflict)
    np.testing.assert_allclose(arrays["similarity"], unit @ unit.T, atol=1e-6)
    axes = conflict.principal_axes(arrays["similarity"], arrays["scores"].shape[1])
    np.testing.assert_array_equal(arrays["scores"], axes.scores)


def test_changed_data_is_named(finished, tmp_path):
    world.mixture(tmp_path / "data")
    with (tmp_path / "data" / "upper.train.jsonl").open("a") as file:
        file.write('{"inputs": "shout x", "targets": "X"}\n')
    run = world.copied(finished, tmp_path)
    with pytest.raises(ValueError, match=r"index\.json: the examples of dataset 'upper' have changed"):
        run_stages(run, ("gradients",))
    run_stages(world.copied(finished, tmp_path, overwrite=True), ("gradients",))
    assert (np.stack(gradients_of(run)) != np.stack(gradients_of(finished))).any(axis=1).sum() == 1


@pytest.mark.parametrize("content", [None, b"", b"not numpy", "cut", "changed"])
def test_a_damaged_row_is_named(finished, tmp_path, content):
    run = world.copied(finished, tmp_path)
    path = row_file(run, "copy")
    if content == "changed":
        np.save(path, 2 * np.load(path))
    elif content == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        path.unlink() if content is None else path.write_bytes(content)
    run.workdir.conflict.unlink()
    with pytest.raises(ValueError, match=rf"{path.name} \(dataset 'copy'\)"):
        run_stages(run, ("conflict",))
    assert not run.workdir.conflict.exists()


def test_a_dataset_without_gradient_is_named(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    without(run, "length")
    run.workdir.conflict.unlink()
    with pytest.raises(ValueError, match=r"no gradient of dataset 'length' .*; run --stages=gradients first"):
        run_stages(run, ("conflict",))


def test_a_zero_gradient_names_its_dataset_and_stores_nothing(finished, tmp_path):
    run = world.run(world.beside(finished, tmp_path), "run")
    shared = run.shared.with_value("loss_fn", lambda params, batch: (0.0 * batch.weights.sum(1), batch.weights.sum(1)))
    run = dataclasses.replace(run, shared=shared)
    with pytest.raises(ValueError, match="dataset 'copy': its gradient is zero"):
        run_stages(run, ("gradients",))
    assert not run.workdir.gradients.exists()


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_damaged_similarities_are_named(finished, tmp_path, content):
    run = world.copied(finished, tmp_path)
    run.workdir.conflict.write_bytes(content)
    for stage in ("conflict", "partition"):
        with pytest.raises(ValueError, match=r"conflict\.npz is damaged"):
            run_stages(run, (stage,))


def test_a_row_with_one_bit_changed_is_named(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    path = row_file(run, "copy")
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    run.workdir.conflict.unlink()
    with pytest.raises(
        ValueError, match=rf"{path.name} \(dataset 'copy'\) does not hold the gradient that was written"
    ):
        run_stages(run, ("conflict",))
    with pytest.raises(ValueError, match=rf"{path.name} \(dataset 'copy'\)"):
        gradients_of(run)
