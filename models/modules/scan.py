"""Stacks layers: one scan, more or less unrolled, that keeps or recomputes activations."""

from typing import Any

from flax import linen as nn

from merit_jax.models.interface import REMAT, StackConfig

GRAMS = "input_grams"
"""Variable collection of the Gram matrices that `merit_jax.models.modules.input_grams` takes."""
GATES = "head_gates"
"""Variable collection of the factors of attention heads' outputs; empty: all are 1."""
ENTROPIES = "head_entropies"
"""Variable collection of the entropies of attention heads."""


def stacked(layer: type[nn.Module], config: StackConfig, length: int, in_axes: Any) -> type[nn.Module]:
    """Returns a module of `length` layers with parameters stacked on a leading "layers" axis.

    Args:
        layer: Called as `layer(config)(x, *inputs) -> (x, output)`.
        config: Its `scan_unroll` and `remat`.
        length: Number of layers.
        in_axes: Per input: 0 if each layer has its own, stacked on a leading axis; `nn.broadcast` if all share one.
    """
    unroll = max(length if config.scan_unroll is True else min(config.scan_unroll, length), 1)
    policy = REMAT[config.remat]
    return nn.scan(
        layer if policy is None else nn.remat(layer, prevent_cse=unroll > 1, policy=policy),
        variable_axes={"params": 0, GRAMS: 0, GATES: 0, ENTROPIES: 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=length,
        unroll=unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
