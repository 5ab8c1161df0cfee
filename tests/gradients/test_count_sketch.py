"""The sketch: as its definition says on any mesh, with hashes that are independent over leaves and do not wrap."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.gradients.count_sketch import CountSketch, _hash, _keys
from tests.support.sharded_leaves import HOST, MESHES, collectives, cut, program

LEAVES = [f"decoder/layers/{name}" for name in ("q", "k", "v", "o", "gate", "up", "down", "input_norm", "post_norm")]


def mix(x):
    """murmur3's finaliser, in exact integers."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = ((x ^ (x >> shift)) * factor) % 2**32
    return x ^ (x >> 16)


def plain_sketch(width):
    """Entry by entry, in float64 and exact integers."""
    total = np.zeros(width)
    for path, leaf in HOST.items():
        first, second = np.frombuffer(hashlib.sha256(path.encode()).digest()[:8], "<u4").tolist()
        matrix = leaf.reshape(-1, leaf.shape[-1] if leaf.shape else 1)
        for (row, column), value in np.ndenumerate(matrix):
            bits = mix(mix(row ^ first) ^ mix(mix(column) ^ second))
            total[bits % 2**31 % width] += -value if bits >> 31 else value
    return total


@pytest.mark.parametrize("mesh", MESHES)
def test_a_sketch_is_the_same_on_any_mesh_and_only_sketches_travel(mesh):
    leaves = cut(mesh)
    np.testing.assert_allclose(CountSketch(60)(leaves), plain_sketch(60), rtol=1e-5, atol=1e-5)
    moved = collectives(program(CountSketch(60), leaves).as_text())
    assert moved == ([] if np.prod(mesh) == 1 else [("all-reduce", 60)])


def test_a_sketch_reads_a_leaf_in_blocks_whose_number_does_not_matter(monkeypatch):
    monkeypatch.setattr("merit_jax.gradients.count_sketch.BLOCK", 200)
    np.testing.assert_allclose(CountSketch(61)(HOST), plain_sketch(61), rtol=1e-5, atol=1e-5)


def test_a_sketch_needs_little_memory_beside_the_leaves():
    leaves = {"large": jax.ShapeDtypeStruct((4096, 512), jnp.float32)}
    compiled = jax.jit(lambda x: CountSketch(4096).device_part(x, leaves)).lower(leaves).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.2 * compiled.memory_analysis().argument_size_in_bytes


def test_inner_products_have_the_stated_mean_and_variance_over_leaves():
    """A draw of all hashes is a draw of names for the leaves."""
    rng, width, draws = np.random.default_rng(0), 64, 1000
    shapes = {"a": (60, 30), "b": (20, 30), "c": (20, 30), "d": (1, 50)}
    u = {path: rng.standard_normal(shape) for path, shape in shapes.items()}
    u["c"] = u["b"].copy()  # what coherent hashes would add up
    v = {path: leaf + rng.standard_normal(leaf.shape) for path, leaf in u.items()}
    found = np.zeros(draws)
    for draw in range(draws):
        total = np.zeros((2, width))
        for path, shape in shapes.items():
            rows, columns = np.indices(shape, np.uint32)
            bucket, sign = map(np.asarray, CountSketch(width).places(f"{draw}/{path}", rows, columns))
            for sketch, leaf in zip(total, (u[path], v[path]), strict=True):
                np.add.at(sketch, bucket, sign * leaf)
        found[draw] = total[0] @ total[1]
    x, y = (np.concatenate([leaf.ravel() for leaf in leaves.values()]) for leaves in (u, v))
    variance = (x @ x * (y @ y) + (x @ y) ** 2 - 2 * (x**2 @ y**2)) / width
    assert abs(found.mean() - x @ y) < 4 * np.sqrt(variance / draws)
    assert found.var() == pytest.approx(variance, rel=0.2)


def test_no_leaf_is_a_shift_of_another():
    """Entries of two leaves meet as chance has it, and at no one distance from each other."""
    places = np.arange(2**17, dtype=np.uint32)
    hashes = {path: np.asarray(_hash(np.zeros_like(places), places, _keys(path))) for path in LEAVES}
    expected = len(places) ** 2 / 2**32
    for one, first in hashes.items():
        for other, second in hashes.items():
            if one < other:
                _, at, there = np.intersect1d(first, second, return_indices=True)
                assert len(at) < expected + 8 * np.sqrt(expected)
                shifts = np.unique(at - there, return_counts=True)[1]
                assert not len(at) or shifts.max() <= 2


def test_rows_past_two_to_the_32_entries_do_not_wrap():
    sketch, rows = CountSketch(2**18), np.arange(2000, dtype=np.uint32)
    later = rows + np.uint32(2**32 // 5120)  # of 5,120 columns, as in a kernel of a 14B model
    bucket, sign = sketch.places("w", rows, np.full_like(rows, 7))
    bucket_later, sign_later = sketch.places("w", later, np.full_like(rows, 7))
    assert np.mean((bucket == bucket_later) & (sign == sign_later)) < 0.01


def test_more_rows_than_a_hash_tells_apart_are_refused():
    def sketch(leaves):
        return CountSketch(64).device_part(leaves, {"w": jax.ShapeDtypeStruct((2**17, 2**16, 2), jnp.float32)})

    with pytest.raises(ValueError, match=r"w: a leaf of shape .* has more than 2\^32 rows"):
        jax.eval_shape(sketch, {"w": jax.ShapeDtypeStruct((2**17, 2**16, 2), jnp.float32)})
