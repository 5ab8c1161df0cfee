"""qwix's LoRA for the products of Linen modules, with DoRA's lengths and frozen kernels in NF4; imported where it is used."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import qwix
from flax import linen as nn
from qwix._src.utils.flax_util import get_current_module

from merit_jax.models.adapters.forms import MAGNITUDE, A, B

KERNEL = "kernel"
"""Name of the parameter that a module multiplies by."""

LARGEST_TILE, SMALLEST_TILE = 64, 8
"""Numbers of a kernel's column that share a scale in NF4: the most (as in QLoRA), and the fewest that are worth one."""


class Provider(qwix.LoraProvider):
    """LoRA for the modules that rules name; DoRA for those with a leaf for the lengths of their kernel's columns."""

    def nn_param(self, module: nn.Module, name: str, *args: Any, **kwargs: Any) -> Any:
        """Returns a parameter; one in NF4 as an array that a module may cast, which qwix 0.1.8 cannot in Linen."""
        found = super().nn_param(module, name, *args, **kwargs)
        return _castable(found) if isinstance(getattr(found, "array", None), qwix.QArray) else found

    def dot_general(self, lhs: Any, rhs: Any, dimension_numbers: Any, *args: Any, **kwargs: Any) -> jax.Array:
        """Computes `x (W + s A B)`, in DoRA times `m / |W + s A B|`, whose divisor gets no gradient (arXiv:2402.09353, 4.3)."""
        out = super().dot_general(lhs, rhs, dimension_numbers, *args, **kwargs)
        leaf = partial(get_current_module().get_variable, "params")
        magnitude = leaf(KERNEL + MAGNITUDE)
        rule, _ = self._get_current_rule_and_op_id("dot_general", only_rule=True)
        if magnitude is None or rule is None:
            return out
        kernel = qwix.dequantize(rhs.array) if hasattr(rhs, "array") else rhs
        lengths = column_lengths(kernel, leaf(KERNEL + A), leaf(KERNEL + B), rule.alpha / rule.rank)
        return out * (magnitude / jax.lax.stop_gradient(lengths)).astype(out.dtype)


def column_lengths(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """Computes the lengths of the columns of `W + s A B` in float32 without forming it: `|W|² + s (2 Wᵀ A + s B ᵀAᵀA) · B`."""
    w, a, b = (leaf.astype(jnp.float32) for leaf in (kernel, a, b))
    crossed = 2 * (a.T @ w) + scale * (a.T @ a) @ b
    square = jnp.square(w).sum(axis=0) + scale * (crossed * b).sum(axis=0)
    return jnp.sqrt(jnp.maximum(square, 0))


def _castable(stored: Any) -> Any:
    """Returns qwix's holder of a quantised array with a working `astype`; lives as long as one product."""
    kind = type(
        "WithAux", (type(stored),), {"astype": lambda self, dtype: self.replace(array=self.array.astype(dtype))}
    )
    return kind(stored.array, stored.how)


def rules(kernels: Mapping[str, jax.ShapeDtypeStruct], rank: int, scale: float, four_bits: bool) -> list[Any]:
    """Returns a rule of qwix for each kernel, by its path and shape."""
    return [
        qwix.LoraRule(
            module_path=_escaped(path.rpartition("/")[0]),
            rank=rank,
            alpha=scale * rank,
            weight_qtype="nf4" if four_bits else None,
            tile_size=tile(spec.shape[-2]) if four_bits else None,
        )
        for path, spec in kernels.items()
    ]


def _escaped(path: str) -> str:
    return "".join(f"\\{letter}" if letter in ".^$*+?{}[]\\|()" else letter for letter in path)


def tile(size: int) -> int | None:
    """Returns the largest divisor of a kernel's inputs that may share a scale; None, for the whole column, where all are small.

    Examples:
        >>> tile(576), tile(1176), tile(67)
        (64, 56, None)
    """
    fits = [n for n in range(SMALLEST_TILE, LARGEST_TILE + 1) if not size % n]
    return max(fits, default=None)


def quantised(leaf: jax.Array, like: Any) -> Any:
    """Returns a stack of kernels in NF4, each layer on its own.

    Args:
        leaf: [*layers, in, out].
        like: The same as qwix's abstract parameter of it.
    """
    how = like.how
    one = partial(qwix.quantize, qtype="nf4", channelwise_axes=how.channelwise_axes, tiled_axes=how.tiled_axes)
    layers = leaf.reshape(-1, *leaf.shape[-2:])
    stack = jax.jit(lambda layers: jax.lax.map(one, layers))(layers)
    parts = [part.reshape(*leaf.shape[:-2], *part.shape[1:]) for part in jax.tree.leaves(stack)]
    return jax.tree.unflatten(jax.tree.structure(like), parts)
