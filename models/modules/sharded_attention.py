"""Attention over the devices of a mesh: each has the queries of its rows, heads and tokens, and gathers the keys of its rows.

The tokens of a row are shared as in Llama 3 (2024, arXiv:2407.21783, section 3.3.2): keys and values, which grouped queries make
small, are gathered over the mesh axis of tokens, one layer at a time, and their gradients scattered back.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from merit_jax.models.modules.chunked_attention import OUTPUT
from merit_jax.models.modules.visible import Visible
from merit_jax.models.placement import Placement


def token_shards(placement: Placement) -> int:
    """Returns the number of devices that share the tokens of a row."""
    return placement.mesh().shape[placement.tokens]


def shares_tokens(placement: Placement, visible: Visible, queries: int) -> bool:
    """Returns whether devices share the tokens of rows of so many queries: not those of a cache, nor what they do not divide."""
    shards = token_shards(placement)
    return shards > 1 and visible.whole and not queries % shards


def over_devices(
    attend: Callable[..., Array],
    placement: Placement,
    operands: tuple[Array, Array, Array],
    visible: Visible,
    extra: Any = (),
    extra_specs: Any = (),
) -> Float[Array, "b t heads dim"]:
    """Computes attention of each device's queries to all keys of their rows.

    Rows or heads that the mesh does not divide are whole on every device.

    Args:
        attend: (query, key, value, visible, *extra) -> vectors, on one device.
        placement: Placement of rows, heads and tokens.
        operands: Queries, keys and values.
        visible: The keys that each query sees.
        extra: More arguments.
        extra_specs: Their partitions.
    """
    (b, t), kv_heads, mesh = operands[0].shape[:2], operands[1].shape[2], placement.mesh()
    rows = placement.rows if b % math.prod(mesh.shape[axis] for axis in placement.rows) == 0 else None
    heads = placement.heads if kv_heads % mesh.shape[placement.heads] == 0 else None
    tokens = placement.tokens if shares_tokens(placement, visible, t) else None
    vectors = PartitionSpec(rows, tokens, heads)

    described, structure = jax.tree_util.tree_flatten_with_path(dataclasses.replace(visible, pairs=None))

    def spec(path: tuple[Any, ...], x: Array) -> PartitionSpec:
        if not x.ndim:
            return PartitionSpec()
        return PartitionSpec(rows if x.shape[0] == b else None, tokens if path[0].name == "query" else None)

    def of_device(query: Array, key: Array, value: Array, properties: list[Array], *extra: Any) -> Array:
        if tokens is not None:
            key, value = (jax.lax.all_gather(x, tokens, axis=1, tiled=True) for x in (key, value))
        return attend(query, key, value, jax.tree.unflatten(structure, properties), *extra)

    if tokens is not None:  # whole keys are gathered again in the backward pass, not kept for every layer
        of_device = jax.checkpoint(of_device, policy=jax.checkpoint_policies.save_only_these_names(OUTPUT))
    inputs = (vectors, vectors, vectors, [spec(path, x) for path, x in described], *extra_specs)
    shared = jax.shard_map(of_device, mesh=mesh, in_specs=inputs, out_specs=vectors, check_vma=False)
    return shared(*operands, [x for _, x in described], *extra)
