"""Inner products of gradient rows in one pass over their coordinates, each row divided by its norm as it is read."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from merit_jax.core.sharding import to_host
from merit_jax.core.types import Array

BLOCK = 2**23
"""Entries that are read at a time, over all rows (32 MiB in float32)."""

WIDTH = 2**16
"""Coordinates of a block at most: so many products are added in float32."""

MOST_CORES = 8
"""Cores that multiply at most: each holds a block, and memory's bandwidth ends before that."""


@runtime_checkable
class Row(Protocol):
    """One gradient: has a length and gives the entries of a slice.

    A row that also has `read_into(start, out)`, which fills `out` with its entries from `start` on, is read without a copy.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Any: ...


Rows = Float[Array, "_ _"] | Sequence[Row]
"""A matrix, or one `Row` for each dataset."""


class Products(NamedTuple):
    """Inner products of rows divided by their given norms n.

    Attributes:
        inner: `⟨g_i, g_j⟩ / (n_i n_j)` of the rows from `first` on with all rows.
        squares: `‖g_j‖² / n_j²`, one up to rounding where n_j is the norm.
    """

    inner: Float[np.ndarray, "m t"]
    squares: Float[np.ndarray, " t"]


def inner_products(rows: Rows, norms: Float[np.ndarray, " t"], first: int = 0, mesh: Mesh | None = None) -> Products:
    """Computes products of the rows from `first` on with all rows, reading each coordinate once.

    A row is scaled by the power of two next to its norm, which is exact, as a block of it is read; the rest of the division
    follows on the sums. Products are float32 within a block; blocks are added in float64 on the host, and on devices in
    float32 with compensation.

    Args:
        rows: The gradients.
        norms: ‖g_t‖ of each, positive and finite.
        first: Rows before it are not compared with each other.
        mesh: Devices that multiply, each its own coordinates; None: the host.
    """
    exponents = np.clip(np.frexp(norms)[1], -126, 126)
    factors = np.exp2(-exponents).astype(np.float32)
    inner, squares = _on_host(rows, factors, first) if mesh is None else _on_devices(rows, factors, first, mesh)
    rest = np.exp2(exponents) / norms
    inner *= rest[first:, None]
    inner *= rest
    return Products(inner, squares * rest**2)


def row_norms(rows: Rows) -> Float[np.ndarray, " t"]:
    """Computes the norm of each row in float64, a block at a time; not finite for a row that is not."""
    total, width = row_length(rows), block_width(rows)

    def norm(row: Row) -> float:
        pieces = (np.asarray(row[start : start + width], np.float32) for start in range(0, total, width))
        return float(np.sqrt(sum(np.square(piece, dtype=np.float64).sum() for piece in pieces)))

    with ThreadPoolExecutor(_cores()) as pool:
        return np.fromiter(pool.map(norm, rows), np.float64, len(rows))


def row_length(rows: Rows) -> int:
    """Returns the common length of the rows.

    Raises:
        ValueError: They differ in length, or there are none.
    """
    found = sorted({len(row) for row in rows})
    if len(found) != 1:
        raise ValueError(f"expected gradients of one length, got {len(rows)} of the lengths {found}")
    return found[0]


def block_width(rows: Rows) -> int:
    """Returns the number of coordinates in a block: `BLOCK` entries over all rows, `WIDTH` at most."""
    return max(1, min(row_length(rows), WIDTH, BLOCK // len(rows)))


def blocks(
    rows: Rows, factors: Float[np.ndarray, " t"], first: int = 0, step: int = 1
) -> Iterator[Float[np.ndarray, "t w"]]:
    """Reads coordinates in order, float32; the next block reuses the memory of the one before.

    Args:
        rows: The gradients.
        factors: Factor by which each is multiplied.
        first: Number of the first block that is read.
        step: Of so many blocks one is read.
    """
    total, width = row_length(rows), block_width(rows)
    buffer = np.empty(len(rows) * width, np.float32)
    for start in range(first * width, total, step * width):
        here = min(width, total - start)
        yield _read(rows, factors, start, buffer[: len(rows) * here].reshape(len(rows), here))


def _read(
    rows: Rows, factors: Float[np.ndarray, " t"], start: int, out: Float[np.ndarray, "t w"]
) -> Float[np.ndarray, "t w"]:
    """Fills `out` with coordinates `start` to `start + w` of every row times its factor."""
    with np.errstate(over="ignore"):
        for row, factor, place in zip(rows, factors, out, strict=True):
            if (read_into := getattr(row, "read_into", None)) is not None:
                read_into(start, place)
            else:
                place[:] = row[start : start + len(place)]
            place *= factor
    return out


def _cores() -> int:
    """Cores that this process may use, and that products have use for."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, MOST_CORES)


def _on_host(rows: Rows, factors: Float[np.ndarray, " t"], first: int) -> tuple[np.ndarray, np.ndarray]:
    """Products and squares by BLAS; each core reads and multiplies blocks of its own and never waits for another."""
    cores = _cores()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as pool:
        sums = pool.map(partial(_sums_of_core, rows, factors, first, cores), range(cores))
        inner, squares = next(sums)
        for more_inner, more_squares in sums:
            inner += more_inner
            squares += more_squares
    return inner, squares


def _sums_of_core(
    rows: Rows, factors: Float[np.ndarray, " t"], first: int, cores: int, core: int
) -> tuple[np.ndarray, np.ndarray]:
    """The sums over the blocks of one core: of every `cores` blocks, the one numbered `core`."""
    inner, squares = np.zeros((len(rows) - first, len(rows))), np.zeros(len(rows))
    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks(rows, factors, core, cores):
            product = block[first:] @ block.T
            inner += product
            squares += np.vecdot(block, block) if first else product.diagonal()
    return inner, squares


class DeviceSums(NamedTuple):
    """Sums over the coordinates that one device has seen; the leading axis counts devices.

    Attributes:
        inner: Products.
        squares: Squared norms.
        inner_lost: The part of `inner` that rounding has taken.
        squares_lost: The part of `squares` that rounding has taken.
    """

    inner: Float[Array, "n m t"]
    squares: Float[Array, "n t"]
    inner_lost: Float[Array, "n m t"]
    squares_lost: Float[Array, "n t"]

    @classmethod
    def zero(cls, mesh: Mesh, rows: int, first: int) -> "DeviceSums":
        """Sums over nothing."""
        matrix, vector = (mesh.size, rows - first, rows), (mesh.size, rows)
        sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        return cls(*(jnp.zeros(shape, jnp.float32, device=sharding) for shape in (matrix, vector) * 2))


def _on_devices(rows: Rows, factors: Float[np.ndarray, " t"], first: int, mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Products and squares by the devices of a mesh; a process reads the coordinates of its own devices."""
    total, (add, join) = row_length(rows), device_programs(mesh, first)
    shape = (len(rows), -(-block_width(rows) // mesh.size) * mesh.size)
    sharding, sums = NamedSharding(mesh, PartitionSpec(None, mesh.axis_names)), DeviceSums.zero(mesh, len(rows), first)
    for start in range(0, total, shape[1]):
        part = partial(_part, rows, factors, start, total, shape[1])
        sums = add(sums, jax.make_array_from_callback(shape, sharding, part))
    inner, squares = (to_host(found).astype(np.float64) for found in join(sums))
    return inner, squares


def device_programs(mesh: Mesh, first: int) -> tuple[Callable, Callable]:
    """Compiles `(sums, block) -> sums`, where each device adds its own coordinates, and `sums -> (inner, squares)` over all."""
    here, columns = PartitionSpec(mesh.axis_names), PartitionSpec(None, mesh.axis_names)
    add = jax.shard_map(partial(_add, first=first), mesh=mesh, in_specs=(here, columns), out_specs=here)
    join = jax.shard_map(partial(_join, axes=mesh.axis_names), mesh=mesh, in_specs=here, out_specs=PartitionSpec())
    return jax.jit(add, donate_argnums=0), jax.jit(join)


def _part(
    rows: Rows, factors: Float[np.ndarray, " t"], start: int, total: int, width: int, index: tuple[slice, ...]
) -> Float[np.ndarray, "t w"]:
    """The columns that one device has of the block from `start` on; zeros behind the last coordinate."""
    low, high, _ = index[1].indices(width)
    out = np.zeros((len(rows), high - low), np.float32)
    there = max(0, min(high, total - start) - low)
    if there:
        out[:, :there] = _read(rows, factors, start + low, np.empty((len(rows), there), np.float32))
    return out


def _add(sums: DeviceSums, block: Float[Array, "t w"], *, first: int) -> DeviceSums:
    """One device's sums with one more block of its coordinates."""
    inner, squares, inner_lost, squares_lost = (leaf[0] for leaf in sums)
    product = jnp.matmul(block[first:], block.T, precision="highest")
    inner, inner_lost = _compensated(inner, inner_lost, product)
    squares, squares_lost = _compensated(squares, squares_lost, jnp.sum(block * block, axis=1))
    return DeviceSums(*(leaf[None] for leaf in (inner, squares, inner_lost, squares_lost)))


def _join(sums: DeviceSums, *, axes: tuple[str, ...]) -> tuple[Array, Array]:
    """The sum over devices of their sums."""
    inner, squares, inner_lost, squares_lost = (leaf[0] for leaf in sums)
    return jax.lax.psum((inner - inner_lost, squares - squares_lost), axes)


def _compensated(total: Array, lost: Array, more: Array) -> tuple[Array, Array]:
    """A sum that remembers what rounding has taken from it (Kahan 1965)."""
    more = more - lost
    new = total + more
    return new, (new - total) - more
