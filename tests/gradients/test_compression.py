"""What is kept of a gradient: the same on any mesh, without a leaf being gathered and without large temporaries."""

import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from merit_jax.core.sharding import MESH_AXES
from merit_jax.gradients.compression import Concatenated, CountSketch, Stride, _compiled, _hash, leaf_shardings
from merit_jax.gradients.estimate import _reducer, _stacked

MESHES = [(1, 1, 1), (1, 2, 1), (2, 2, 1), (1, 8, 1), (1, 4, 2), (1, 1, 8)]
SPECS = {
    "a": PartitionSpec(None, "fsdp", "tensor"),
    "b": PartitionSpec("tensor", "fsdp"),
    "c": PartitionSpec(),
    "d": PartitionSpec(None, ("fsdp", "tensor")),
}
HOST = {
    path: np.random.default_rng(seed).standard_normal(shape, np.float32)
    for seed, (path, shape) in enumerate({"a": (3, 16, 56), "b": (24, 72), "c": (11,), "d": (5, 40)}.items())
}


def cut(shape, specs=SPECS, host=HOST):
    """The leaves on a mesh of the first devices."""
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = jax.make_mesh(shape, MESH_AXES, devices=devices, axis_types=(AxisType.Auto,) * 3)
    return {path: jax.device_put(leaf, NamedSharding(mesh, specs[path])) for path, leaf in host.items()}


def program(reduction, leaves):
    return _compiled(reduction, tuple(leaf_shardings(leaves).items())).lower(leaves).compile()


def collectives(text):
    """(operation, entries of its largest result) of every collective of a compiled program."""
    found = re.findall(r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)", text)
    sizes = [re.findall(r"\[([\d,]*)\]", shapes) for shapes, _ in found]
    return [
        (name, max(int(np.prod([int(n) for n in dims.split(",") if n])) for dims in shapes))
        for (_, name), shapes in zip(found, sizes, strict=True)
    ]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("stride", [1, 3, 5, 100])
def test_a_stride_keeps_the_same_entries_on_any_mesh_and_moves_none(mesh, stride):
    expected = np.concatenate([HOST[path][..., ::stride].ravel() for path in sorted(HOST)])
    leaves = cut(mesh)
    np.testing.assert_array_equal(Stride(stride)(leaves), expected)
    assert Stride(stride).size(leaf_shardings(leaves)) == len(expected)
    assert not collectives(program(Stride(stride), leaves).as_text())


def plain_sketch(width):
    """Bucket by bucket, in float64."""
    total = np.zeros(width)
    for path, leaf in HOST.items():
        bits = np.asarray(_hash(jnp.arange(leaf.size, dtype=jnp.uint32), zlib.crc32(path.encode())))
        np.add.at(total, bits % width, np.where(bits >> 31, -1.0, 1.0) * leaf.ravel())
    return total


@pytest.mark.parametrize("mesh", MESHES)
def test_a_sketch_is_the_same_on_any_mesh_and_only_sketches_travel(mesh):
    leaves = cut(mesh)
    np.testing.assert_allclose(CountSketch(64)(leaves), plain_sketch(64), rtol=1e-5, atol=1e-5)
    moved = collectives(program(CountSketch(64), leaves).as_text())
    assert moved == ([] if np.prod(mesh) == 1 else [("all-reduce", 64)])


@pytest.mark.parametrize("mesh", [(1, 4, 2), (1, 8, 1)])
def test_the_means_of_a_stack_of_datasets_move_no_more(mesh):
    layout = leaf_shardings(cut(mesh))
    sums = {path: jax.device_put(np.stack([leaf, leaf]), _stacked(layout[path])) for path, leaf in HOST.items()}
    for reduction, expected in ((Stride(5), []), (CountSketch(64), [("all-reduce", 128)])):
        finish = _reducer(reduction, tuple(layout.items()))
        assert collectives(finish.lower(sums, jnp.full(2, 2.0)).compile().as_text()) == expected
        second = {path: part[1] for path, part in finish(sums, jnp.array([1.0, 2.0])).items()}
        np.testing.assert_allclose(reduction.row(second, layout), reduction(HOST) / 2, rtol=1e-5, atol=1e-5)


def test_a_sketch_reads_a_leaf_in_blocks_whose_number_does_not_matter(monkeypatch):
    monkeypatch.setattr("merit_jax.gradients.compression.BLOCK", 200)
    np.testing.assert_allclose(CountSketch(60)(HOST), plain_sketch(60), rtol=1e-5, atol=1e-5)


def test_a_sketch_needs_little_memory_beside_the_leaves():
    leaves = {"large": jax.ShapeDtypeStruct((4096, 512), jnp.float32)}
    compiled = jax.jit(lambda x: CountSketch(4096).device_part(x, leaves)).lower(leaves).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.2 * compiled.memory_analysis().argument_size_in_bytes


def test_several_reductions_are_taken_one_after_the_other():
    leaves, parts = cut((1, 4, 2)), (Stride(5), CountSketch(32), Stride(1))
    row = Concatenated(parts)(leaves)
    np.testing.assert_allclose(row, np.concatenate([part(leaves) for part in parts]), rtol=1e-5, atol=1e-6)
    assert Concatenated(parts).size(leaf_shardings(leaves)) == len(row)
