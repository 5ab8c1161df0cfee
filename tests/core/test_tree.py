"""Pytree algebra against numpy in float64; fingerprints that see every bit and no sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from merit_jax.core import sharding, tree


def params(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "b": {
            "y": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32),
            "x": jnp.asarray(rng.normal(size=8), jnp.bfloat16),
        },
        "a": jnp.asarray(rng.normal(size=(2, 8)), jnp.float32),
    }


def test_flatten_sorts_paths_and_unflatten_undoes_it():
    flat = tree.flatten(params())
    assert list(flat) == ["a", "b/x", "b/y"]
    assert jax.tree.structure(tree.unflatten(flat)) == jax.tree.structure(params())


def test_split_and_join_part_and_restore_the_tree():
    trainable, frozen = tree.split(params(), ["^b/"])
    assert (list(trainable), list(frozen)) == (["b/x", "b/y"], ["a"])
    joined = tree.join(trainable, frozen)
    assert jax.tree.structure(joined) == jax.tree.structure(params())
    assert tree.fingerprint(joined) == tree.fingerprint(params())


def test_a_pattern_without_a_parameter_is_refused_with_the_known_paths():
    with pytest.raises(ValueError, match=r"'decoder' matches no parameter; the paths are: a, b/x, b/y"):
        tree.split(params(), ["decoder"])
    with pytest.raises(ValueError, match="nothing would be trained"):
        tree.split(params(), [])


def test_dot_and_norm_accumulate_in_float32_whatever_the_dtype():
    large = {"x": jnp.full(2**14, 1.0, jnp.bfloat16)}
    assert float(tree.dot(large, large)) == 2**14
    a, b = params(0), params(1)
    pairs = [(np.float64(x), np.float64(y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]
    np.testing.assert_allclose(tree.dot(a, b), sum((x * y).sum() for x, y in pairs), rtol=1e-5)
    np.testing.assert_allclose(tree.norm(a), np.sqrt(sum((x * x).sum() for x, _ in pairs)), rtol=1e-5)


def test_axpy_keeps_the_dtypes_of_y():
    result = tree.axpy(0.5, params(0), params(1))
    assert jax.tree.map(lambda x: x.dtype, result) == jax.tree.map(lambda x: x.dtype, params(1))
    np.testing.assert_allclose(result["a"], 0.5 * params(0)["a"] + params(1)["a"], rtol=1e-6)


def test_between_is_a_point_of_the_line_and_keeps_what_is_shared():
    a, b = params(0), params(1)
    b["a"] = a["a"]
    result = tree.between(a, b, 0.25)
    expected = 0.75 * np.float64(a["b"]["y"]) + 0.25 * np.float64(b["b"]["y"])
    np.testing.assert_allclose(result["b"]["y"], expected, atol=1e-6)
    assert result["b"]["x"].dtype == jnp.bfloat16
    assert result["a"] is a["a"]


@pytest.mark.parametrize("path", ["a", "b/x", "b/y"])
def test_a_fingerprint_sees_one_changed_entry_and_two_swapped_ones(path):
    def edited(change):
        flat = tree.flatten(params())
        values = np.array(flat[path]).reshape(-1)
        change(values)
        flat[path] = jnp.asarray(values.reshape(flat[path].shape))
        return tree.fingerprint(tree.unflatten(flat))

    def nudge(values):
        values[-1:] = np.nextafter(np.float32(values[-1]), np.float32(9), dtype=np.float32) + np.float32(0.01)

    def swap(values):
        values[:2] = values[:2][::-1].copy()

    assert len({edited(lambda values: None), edited(nudge), edited(swap)}) == 3
    assert edited(lambda values: None) == tree.fingerprint(params())


def test_a_fingerprint_does_not_depend_on_where_the_leaves_lie():
    mesh = sharding.make_mesh(fsdp=8)
    cut = NamedSharding(mesh, PartitionSpec("fsdp"))
    spread = tree.unflatten(
        {k: jax.device_put(v, cut) if v.shape[0] == 8 else v for k, v in tree.flatten(params()).items()}
    )
    assert tree.fingerprint(spread) == tree.fingerprint(params())


def test_a_fingerprint_sees_names_and_shapes():
    flat = tree.flatten(params())
    renamed = {("c" if path == "a" else path): leaf for path, leaf in flat.items()}
    reshaped = {**flat, "a": flat["a"].reshape(4, 4)}
    assert len({tree.fingerprint(tree.unflatten(tree_)) for tree_ in (flat, renamed, reshaped)}) == 3
