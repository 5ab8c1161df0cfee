"""Pytree algebra in float32 or wider, path names, and fingerprints of parameters."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, UInt32

from merit_jax.core.types import Array, Leaves, Params


def flatten(params: Params) -> dict[str, Any]:
    """Returns path name -> leaf, sorted by name; keys are joined by "/".

    Examples:
        >>> flatten({"dense": {"kernel": 1, "bias": 2}})
        {'dense/bias': 2, 'dense/kernel': 1}
    """
    flat: dict[str, Any] = {}

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, Mapping):
            for key in node:
                visit(node[key], (*path, key))
        else:
            flat["/".join(path)] = node

    visit(params, ())
    return dict(sorted(flat.items()))


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict whose `flatten` is `flat`.

    Examples:
        >>> unflatten({"dense/bias": 2, "dense/kernel": 1})
        {'dense': {'bias': 2, 'kernel': 1}}
    """
    nested: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = nested
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return nested


def split(params: Params, trainable: Sequence[str]) -> tuple[Leaves, Leaves]:
    """Splits leaves into those whose path matches one of the regular expressions, and the rest.

    Args:
        params: Nested dict of arrays.
        trainable: Regular expressions, searched for anywhere in the path name.

    Returns:
        (trainable, frozen), both flat.

    Raises:
        ValueError: A pattern matches no path.

    Examples:
        >>> params = {"dense": {"kernel": jnp.ones(2), "bias": jnp.zeros(1)}}
        >>> trainable, frozen = split(params, ["kernel"])
        >>> list(trainable), list(frozen)
        (['dense/kernel'], ['dense/bias'])
    """
    flat = flatten(params)
    chosen = set(matching(flat, trainable))
    return (
        {path: leaf for path, leaf in flat.items() if path in chosen},
        {path: leaf for path, leaf in flat.items() if path not in chosen},
    )


def matching(paths: Iterable[str], trainable: Sequence[str]) -> list[str]:
    """Returns the path names in which one of the regular expressions is found, in order.

    Raises:
        ValueError: A pattern matches no path.
    """
    known = list(paths)
    for pattern in trainable:
        if not any(re.search(pattern, path) for path in known):
            raise ValueError(f"trainable pattern {pattern!r} matches no parameter; the paths are: {', '.join(known)}")
    chosen = [path for path in known if any(re.search(pattern, path) for pattern in trainable)]
    if not chosen:
        raise ValueError("no trainable pattern given: nothing would be trained; use ('.*',) for every parameter")
    return chosen


def join(trainable: Leaves, frozen: Leaves) -> dict[str, Any]:
    """Joins the params that `split` took apart."""
    return unflatten(dict(sorted({**trainable, **frozen}.items())))


def accumulation_dtype(*leaves: Array) -> Any:
    """Returns the dtype to compute in: float32, or that of a leaf that is wider.

    Examples:
        >>> accumulation_dtype(jnp.zeros(2, jnp.bfloat16)).name
        'float32'
    """
    return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in leaves))


def dot(a: Any, b: Any) -> Float[Array, ""]:
    """Computes ⟨a, b⟩ over all leaves, accumulated in float32 or the leaves' own wider type.

    Examples:
        >>> float(dot({"x": jnp.array([1.0, 2.0]), "y": jnp.array(3.0)}, {"x": jnp.array([4.0, 5.0]), "y": jnp.array(6.0)}))
        32.0
    """
    products = jax.tree.map(
        lambda x, y: jnp.vdot(x.astype(accumulation_dtype(x)), y.astype(accumulation_dtype(y))), a, b
    )
    return jax.tree.reduce(jnp.add, products, jnp.float32(0))


def norm(a: Any) -> Float[Array, ""]:
    """Computes ‖a‖₂ over all leaves, accumulated in float32 or the leaves' own wider type.

    Examples:
        >>> float(norm({"x": jnp.array([1.0, 2.0]), "y": jnp.array(2.0)}))
        3.0
    """
    return jnp.sqrt(dot(a, a))


def axpy(scale: Any, x: Any, y: Any) -> Any:
    """Computes `scale · x + y` in float32 or wider; the result has the dtypes of y.

    Examples:
        >>> axpy(-1.0, {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([4.0, 4.0])})["w"].tolist()
        [3.0, 2.0]
    """
    return jax.tree.map(
        lambda x, y: (scale * x.astype(accumulation_dtype(x)) + y.astype(accumulation_dtype(y))).astype(y.dtype),
        x,
        y,
    )


def between(a: Any, b: Any, share: float) -> Any:
    """Computes `a + share · (b − a)` in float32 or wider, in the dtypes of a; a leaf that is one array in both is returned.

    Examples:
        >>> between({"w": jnp.array([0.0, 4.0])}, {"w": jnp.array([8.0, 4.0])}, 0.25)["w"].tolist()
        [2.0, 4.0]
    """
    return jax.tree.map(lambda x, y: x if x is y else _between(x, y, share), a, b)


@jax.jit
def _between(x: Array, y: Array, share: float | Array) -> Array:
    start = x.astype(accumulation_dtype(x))
    return (start + share * (y.astype(accumulation_dtype(y)) - start)).astype(x.dtype)


@jax.jit
def _checksum(leaf: Array) -> UInt32[Array, "2"]:
    """Two position-dependent sums over the bits of a leaf: exact in any order, so the same on any sharding."""
    unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    index = jnp.zeros(leaf.shape, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    sums = []
    for multiplier in (0x9E3779B1, 0x85EBCA6B):
        mixed = (bits ^ (index * jnp.uint32(multiplier))) * jnp.uint32(0xC2B2AE35)
        sums.append(jnp.sum(mixed ^ (mixed >> 15), dtype=jnp.uint32))
    return jnp.stack(sums)


def fingerprint(params: Params) -> str:
    """Returns the sha256 over path, shape, dtype and content checksum of every leaf.

    Each leaf is summed in 32-bit integers on its own devices, so the result is the same on any number of them and no leaf is
    gathered.

    Examples:
        >>> fingerprint({"w": jnp.arange(4.0)})[:12]
        '29b0418ef592'
    """
    flat = flatten(params)
    sums = jax.device_get({path: _checksum(leaf) for path, leaf in flat.items()})
    digest = hashlib.sha256()
    for path, leaf in flat.items():
        digest.update(f"{path} {tuple(leaf.shape)} {leaf.dtype} {sums[path].tolist()}\n".encode())
    return digest.hexdigest()
