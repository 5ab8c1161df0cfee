"""Inner products of gradient rows on several devices: each multiplies its own coordinates, and one sum joins them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from merit_jax.conflict.blocked_products import LEAST, MOST, Products
from merit_jax.conflict.rows import Rows, block_width, entries, read
from merit_jax.core.sharding import to_host
from merit_jax.core.types import Array


class Programs(NamedTuple):
    """What runs on the devices.

    Attributes:
        start: () -> sums of nothing.
        add: (sums, block) -> sums; the block is cut along its coordinates, and no device hears of another.
        join: sums -> (inner, squares, exponents, how many devices found a row broken), the same on all devices.
    """

    start: Any
    add: Any
    join: Any


class _Sums(NamedTuple):
    """Sums over the coordinates that one device has seen; the leading axis counts devices.

    Attributes:
        inner: `⟨ĝ_i, ĝ_j⟩` with `ĝ = 2^-e g`.
        squares: `‖ĝ_j‖²`.
        inner_lost: What rounding has taken from `inner` so far.
        squares_lost: What rounding has taken from `squares`.
        exponents: e_j.
        largest: Largest magnitude in each row, NaN where the row has one.
    """

    inner: Float[Array, "n m t"]
    squares: Float[Array, "n t"]
    inner_lost: Float[Array, "n m t"]
    squares_lost: Float[Array, "n t"]
    exponents: Int[Array, "n t"]
    largest: Float[Array, "n t"]


def inner_products(rows: Rows, mesh: Mesh, first: int = 0) -> Products:
    """Products of the rows from `first` on with all rows, in float32 with compensated sums from block to block.

    Every block is cut along its coordinates over all axes of the mesh. A process reads the coordinates of its own devices.
    Entries below the normal range of float32 count as zero.
    """
    total, run = entries(rows), programs(mesh, len(rows), first)
    shape = (len(rows), -(-block_width(rows) // mesh.size) * mesh.size)
    sharding, sums = NamedSharding(mesh, PartitionSpec(None, mesh.axis_names)), run.start()
    for start in range(0, total, shape[1]):
        cut = partial(_part, rows, start, total, shape[1])
        sums = run.add(sums, jax.make_array_from_callback(shape, sharding, cut))
    inner, squares, exponents, broken = map(to_host, run.join(sums))
    return Products(inner.astype(np.float64), squares.astype(np.float64), exponents.astype(np.int64), broken > 0)


def programs(mesh: Mesh, rows: int, first: int) -> Programs:
    """The three programs for so many rows, of which those from `first` on are compared with all."""
    axes, here = mesh.axis_names, PartitionSpec(mesh.axis_names)
    cut = PartitionSpec(None, axes)
    add = jax.shard_map(partial(_add, first=first), mesh=mesh, in_specs=(here, cut), out_specs=here)
    join = jax.shard_map(partial(_join, axes=axes, first=first), mesh=mesh, in_specs=here, out_specs=PartitionSpec())
    start = partial(_start, mesh.size, rows, first)
    return Programs(
        jax.jit(start, out_shardings=NamedSharding(mesh, here)), jax.jit(add, donate_argnums=0), jax.jit(join)
    )


def _part(rows: Rows, start: int, total: int, width: int, index: tuple[slice, ...]) -> Float[np.ndarray, "t w"]:
    """What one device has of the block from `start` on; zeros behind the last coordinate."""
    low, high, _ = index[1].indices(width)
    out = np.zeros((len(rows), high - low), np.float32)
    there = max(0, min(high, total - start) - low)
    if there:
        held = read(rows, start + low, np.empty((len(rows), there), np.float32))
        out[:, :there] = held
    return out


def _start(devices: int, rows: int, first: int) -> _Sums:
    """Nothing seen yet."""
    matrix, vector = jnp.zeros((devices, rows - first, rows)), jnp.zeros((devices, rows))
    return _Sums(matrix, vector, matrix, vector, jnp.full(vector.shape, LEAST, jnp.int32), vector)


def _add(sums: _Sums, block: Float[Array, "t w"], *, first: int) -> _Sums:
    """One device's sums with one more block of its coordinates."""
    inner, squares, inner_lost, squares_lost, exponents, largest = (leaf[0] for leaf in sums)
    here = jnp.max(jnp.abs(block), axis=1)
    raised = jnp.clip(jnp.frexp(here)[1], LEAST, MOST)
    raised = jnp.where(here > 0, jnp.maximum(exponents, raised), exponents)
    inner, squares, inner_lost, squares_lost = _rescaled(
        inner, squares, inner_lost, squares_lost, exponents - raised, first
    )
    block = block * _power(-raised)[:, None]
    product = jnp.matmul(block[first:], block.T, precision="highest")
    inner, inner_lost = _compensated(inner, inner_lost, product)
    squares, squares_lost = _compensated(squares, squares_lost, jnp.sum(block * block, axis=1))
    found = _Sums(inner, squares, inner_lost, squares_lost, raised, jnp.maximum(largest, here))
    return jax.tree.map(lambda leaf: leaf[None], found)


def _join(sums: _Sums, *, axes: tuple[str, ...], first: int) -> tuple[Array, Array, Array, Array]:
    """The sum over devices of their sums, on a common scale: (inner, squares, exponents, how many found a row broken)."""
    inner, squares, inner_lost, squares_lost, exponents, largest = (leaf[0] for leaf in sums)
    top = jax.lax.pmax(exponents, axes)
    shift = exponents - top
    inner, squares, _, _ = _rescaled(inner - inner_lost, squares - squares_lost, inner, squares, shift, first)
    broken = (~jnp.isfinite(largest)).astype(jnp.int32)
    inner, squares, broken = jax.lax.psum((inner, squares, broken), axes)
    return inner, squares, top, broken


def _rescaled(
    inner: Float[Array, "m t"],
    squares: Float[Array, " t"],
    inner_lost: Float[Array, "m t"],
    squares_lost: Float[Array, " t"],
    shift: Int[Array, " t"],
    first: int,
) -> tuple[Array, Array, Array, Array]:
    """Sums of rows that are scaled by `2^shift`, none of them up."""
    own, other, both = _power(shift[first:])[:, None], _power(shift), _power(2 * shift)
    return inner * own * other, squares * both, inner_lost * own * other, squares_lost * both


def _power(exponent: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """2^exponent; 0 where that is too small for float32."""
    return jnp.ldexp(jnp.ones(exponent.shape, jnp.float32), exponent)


def _compensated(total: Array, lost: Array, more: Array) -> tuple[Array, Array]:
    """A sum that remembers what rounding has taken from it (Kahan 1965)."""
    more = more - lost
    new = total + more
    return new, (new - total) - more
