"""Attention heads of a model, as the method sees them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from merit_jax.core.types import Array, Batch, Model, Params

ByHead = Mapping[str, Shaped[np.ndarray, "layers heads"]]
"""Part of a model ("decoder", "vision") -> a number, True or False for each of its heads."""


@runtime_checkable
class HeadCount(Protocol):
    """The attention heads of a part of a model."""

    @property
    def layers(self) -> int:
        """Layers."""

    @property
    def heads(self) -> int:
        """Query heads of a layer."""

    @property
    def groups(self) -> int:
        """Key and value heads of a layer; each serves `heads / groups` neighbouring query heads."""


@runtime_checkable
class HasHeads(Model, Protocol):
    """A model whose attention heads can be gated and measured."""

    @property
    def heads(self) -> Mapping[str, HeadCount]:
        """Part of the model -> its heads."""

    @property
    def gated(self) -> Callable[[Mapping[str, Any]], "HasHeads"]:
        """(gates of parts, [layers, heads] or by row [layers, b, heads]) -> a model in which each head's output is multiplied."""

    @property
    def head_entropies(self) -> Callable[[Params, Batch], tuple[Array, Mapping[str, Any]]]:
        """(params, batch) -> (hidden states, part -> (mean over queries [layers, b, heads], their number [layers, b]))."""

    @property
    def with_gates(self) -> Callable[[Params, Mapping[str, Any]], Params]:
        """(params, gates [layers, heads]) -> params with which the model computes what the gated one does with the given ones."""

    @property
    def head_norms(self) -> Callable[[Params], Mapping[str, Array]]:
        """(params) -> part -> Frobenius norm of each head's weights [layers, heads]."""
