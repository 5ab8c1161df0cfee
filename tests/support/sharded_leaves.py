"""Gradient leaves on meshes of CPU devices, and the collectives of compiled programs."""

import re

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from merit_jax.core import sharding
from merit_jax.gradients.compressor import _compiled, leaf_shardings

MESHES = [(1, 1, 1), (1, 2, 1), (2, 2, 1), (1, 8, 1), (1, 4, 2), (1, 1, 8)]
"""Shapes of meshes of up to eight devices."""

SPECS = {
    "a": PartitionSpec(None, "fsdp", "tensor"),
    "b": PartitionSpec("tensor", "fsdp"),
    "c": PartitionSpec(),
    "d": PartitionSpec(None, ("fsdp", "tensor")),
    "e": PartitionSpec(),
}

SHAPES = {"a": (3, 16, 56), "b": (24, 72), "c": (11,), "d": (5, 40), "e": ()}

HOST = {
    path: np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)
    for seed, (path, shape) in enumerate(SHAPES.items())
}
"""Path -> leaf, in the host's memory."""


def cut(shape):
    """Returns the leaves on a mesh of the first devices."""
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = sharding.make_mesh(*shape, devices=devices)
    return {path: jax.device_put(leaf, NamedSharding(mesh, SPECS[path])) for path, leaf in HOST.items()}


def program(compressor, leaves):
    """Returns the compiled device's part of a compressor."""
    return _compiled(compressor, tuple(leaf_shardings(leaves).items())).lower(leaves).compile()


def collectives(text):
    """Returns (operation, entries of its largest result) of every collective of a compiled program."""
    found = re.findall(r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)", text)
    sizes = [re.findall(r"\[([\d,]*)\]", shapes) for shapes, _ in found]
    return [
        (name, max(int(np.prod([int(n) for n in dims.split(",") if n])) for dims in shapes))
        for (_, name), shapes in zip(found, sizes, strict=True)
    ]
