"""A streamed merge equals the one in memory, needs memory for a few tensors only, and is whole or absent."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from merit_jax.checkpoints import writer
from merit_jax.core import tree
from merit_jax.merging import MERGERS, OrbaxLeaves, OverlayLeaves, TreeLeaves, merge_streamed

WEIGHTS = [0.5, 0.3, 0.2]
REPOSITORY = Path(__file__).parents[2]


def params(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    kernel = jnp.asarray(rng.standard_normal((6, 8)), jnp.bfloat16)
    return {
        "decoder": {"kernel": kernel, "scale": jnp.asarray(rng.standard_normal(8), jnp.float32)},
        "step": jnp.int32(7),
    }


def save(path, item) -> OrbaxLeaves:
    ocp.PyTreeCheckpointer().save(path, item)
    return OrbaxLeaves(path)


def assert_same(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert jax.tree.map(lambda x: x.dtype, got) == jax.tree.map(lambda x: x.dtype, expected)


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path / "theta0", params(0)), [save(tmp_path / str(k), params(k)) for k in (1, 2, 3)]


@pytest.mark.parametrize(("name", "count", "options"), [("token_weighted", 3, {}), ("interpolate", 1, {"scale": 0.3})])
def test_streamed_equals_in_memory_and_restores_with_plain_orbax(saved, tmp_path, monkeypatch, name, count, options):
    monkeypatch.setattr(writer, "CHUNK_BYTES", 32)
    base, branches = saved
    weights = WEIGHTS if count == 3 else [1.0]
    done = []
    counts = merge_streamed(MERGERS[name], base, branches[:count], weights, tmp_path / "merged", done.append, **options)
    expected = MERGERS[name](params(0), [params(k + 1) for k in range(count)], weights, **options)
    assert_same(ocp.PyTreeCheckpointer().restore(tmp_path / "merged"), expected)
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params(0))
    restored = ocp.StandardCheckpointer().restore(tmp_path / "merged", target)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
    assert_same(restored, expected)
    assert counts == (3, 0)
    assert done == ["decoder/kernel", "decoder/scale", "step"]


def test_a_merge_can_be_read_back_as_a_branch(saved, tmp_path):
    base, branches = saved
    merge_streamed(MERGERS["token_weighted"], base, branches, WEIGHTS, tmp_path / "merged")
    again = OrbaxLeaves(tmp_path / "merged")
    assert again.paths() == base.paths()
    merge_streamed(MERGERS["token_weighted"], base, [again], [1.0], tmp_path / "again")
    assert_same(*(ocp.PyTreeCheckpointer().restore(tmp_path / name) for name in ("merged", "again")))


@pytest.mark.parametrize("nest", [tree.unflatten, dict], ids=["nested", "flat"])
def test_parameters_that_no_branch_holds_are_copied_from_theta0(saved, tmp_path, nest):
    base, _ = saved
    trained = [save(tmp_path / f"t{k}", nest({"decoder/kernel": params(k)["decoder"]["kernel"]})) for k in (1, 2)]
    assert merge_streamed(MERGERS["uniform"], base, trained, [0.5, 0.5], tmp_path / "merged") == (1, 2)
    merged = ocp.PyTreeCheckpointer().restore(tmp_path / "merged")
    kernel = MERGERS["uniform"](params(0), [params(1), params(2)], [0.5, 0.5])["decoder"]["kernel"]
    assert_same(merged, {**params(0), "decoder": {**params(0)["decoder"], "kernel": kernel}})


def test_a_sharded_checkpoint_is_read_whole(tmp_path):
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    leaves = save(tmp_path / "sharded", {"w": jax.device_put(jnp.arange(16.0), sharding)})
    value = leaves.read("w")
    assert isinstance(value, np.ndarray)
    np.testing.assert_array_equal(value, np.arange(16.0))


def test_an_overlay_takes_precedence_and_must_fit():
    base, over = TreeLeaves(params(0)), TreeLeaves({"decoder": {"scale": params(1)["decoder"]["scale"]}})
    laid = OverlayLeaves(base, over)
    assert laid.paths() == base.paths()
    np.testing.assert_array_equal(laid.read("decoder/scale"), params(1)["decoder"]["scale"])
    np.testing.assert_array_equal(laid.read("decoder/kernel"), params(0)["decoder"]["kernel"])
    with pytest.raises(ValueError, match="new: the overlay has it, theta0 lacks it"):
        OverlayLeaves(base, TreeLeaves({"new": np.ones(2)}))


@pytest.mark.parametrize(
    ("drop", "message"),
    [(0, "decoder/scale: theta0 has it, branch 0 lacks it"), (1, "decoder/scale: theta0 has it, branch 1 lacks it")],
)
def test_branches_that_hold_different_parameters_are_refused(tmp_path, drop, message):
    branches = [params(1), params(2)]
    del branches[drop]["decoder"]["scale"]
    readers = [TreeLeaves(branch) for branch in branches]
    with pytest.raises(ValueError, match=message):
        merge_streamed(MERGERS["uniform"], TreeLeaves(params(0)), readers, [0.5, 0.5], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_parameter_unknown_to_theta0_is_refused(tmp_path):
    branch = TreeLeaves({**params(1), "new": np.ones(2)})
    with pytest.raises(ValueError, match="new: branch 0 has it, theta0 lacks it"):
        merge_streamed(MERGERS["uniform"], TreeLeaves(params(0)), [branch], [1.0], tmp_path / "merged")


def test_a_diverged_branch_leaves_nothing_behind(tmp_path):
    branch = params(1)
    branch["decoder"]["scale"] = branch["decoder"]["scale"].at[3].set(jnp.nan)
    with pytest.raises(ValueError, match="decoder/scale: branch 0 holds values that are not finite"):
        merge_streamed(MERGERS["uniform"], TreeLeaves(params(0)), [TreeLeaves(branch)], [1.0], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_existing_result_is_not_overwritten(tmp_path):
    (tmp_path / "merged").mkdir()
    with pytest.raises(ValueError, match="merged exists; remove it"):
        merge_streamed(MERGERS["uniform"], TreeLeaves(params(0)), [TreeLeaves(params(1))], [1.0], tmp_path / "merged")


def test_other_processes_than_the_first_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(ValueError, match="process 0 alone; this is process 1"):
        merge_streamed(MERGERS["uniform"], TreeLeaves(params(0)), [TreeLeaves(params(1))], [1.0], tmp_path / "merged")


def test_what_is_no_checkpoint_of_arrays_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing: no Orbax checkpoint"):
        OrbaxLeaves(tmp_path / "nothing")
    with pytest.raises(ValueError, match="a is list; expected a dict of arrays"):
        save(tmp_path / "list", {"a": [np.ones(2)]})
    with pytest.raises(ValueError, match="two leaves are called a/b"):
        save(tmp_path / "twice", {"a": {"b": np.ones(2)}, "a/b": np.ones(2)})


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess:
    # glibc hoards freed blocks of up to 32 MiB otherwise, which would blur the measurement.
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    command = [sys.executable, str(REPOSITORY / "tests/support/streaming.py"), str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def save_models(path: Path, leaves: int, shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False))
    for k, name in enumerate(["theta0", "0", "1", "2", "3"]):
        model = {f"l{i}": noise + np.float32(i + 1 / (1 + k)) for i in range(leaves)}
        checkpointer.save(path / name, args=ocp.args.PyTreeSave(model))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_is_bounded_by_the_largest_tensor_not_by_the_models(tmp_path):
    """Five models of 12 tensors of 24 MiB, 288 MiB each; the peak grows by less than 200 MiB, eight tensors."""
    save_models(tmp_path, 12, (3072, 2048))
    try:
        finished = run(tmp_path)
        assert finished.returncode == 0, finished.stderr
        assert float(finished.stdout) < 10 * 24
    finally:
        shutil.rmtree(tmp_path)


def test_a_killed_merge_never_looks_finished_and_can_be_repeated(tmp_path):
    save_models(tmp_path, 4, (8, 8))
    killed = run(tmp_path, "2")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "merged").exists()
    finished = run(tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert sorted(OrbaxLeaves(tmp_path / "merged").paths()) == ["l0", "l1", "l2", "l3"]
