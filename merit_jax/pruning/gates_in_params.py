"""A model whose params hold the gates of its attention heads, so that models with other closed heads are compiled once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from merit_jax.core.heads import ByHead, HasHeads
from merit_jax.core.types import Array, Batch, Cache, Model, Params

GATES = "head_gates"
"""Key of the gates in the params: part -> [layers, heads]."""


@dataclasses.dataclass(frozen=True)
class GatesInParams:
    """Pure functions of the params of a model with its gates beside them.

    Attributes:
        model: The model without gates.
    """

    model: HasHeads

    def hidden(self, params: Params, batch: Batch) -> Float[Array, "b t d"]:
        """Computes the final, normalised hidden states."""
        model, rest = self._gated(params)
        return model.hidden(rest, batch)

    def unembed(self, params: Params, hidden: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """Computes logits over the vocabulary, float32."""
        return self.model.unembed(_others(params), hidden)

    def init_cache(self, rows: int, length: int) -> Cache:
        """Makes an empty key-value cache."""
        return self.model.init_cache(rows, length)

    def prefill(self, params: Params, batch: Batch, cache: Cache) -> tuple[Float[Array, "b t d"], Cache]:
        """Reads right-padded prompts into an empty cache."""
        model, rest = self._gated(params)
        return model.prefill(rest, batch, cache)

    def decode(
        self, params: Params, tokens: Int32[Array, "b t"], slots: Int32[Array, "b t"], cache: Cache
    ) -> tuple[Float[Array, "b t d"], Cache]:
        """Appends tokens at cache slots."""
        model, rest = self._gated(params)
        return model.decode(rest, tokens, slots, cache)

    def _gated(self, params: Params) -> tuple[Model, Params]:
        return self.model.gated(params[GATES]), _others(params)


def _others(params: Params) -> Params:
    return {key: value for key, value in params.items() if key != GATES}


def gate_leaves(kept: ByHead) -> Mapping[str, Any]:
    """Returns the gates as a part of params, float32."""
    return {GATES: {part: np.asarray(values, np.float32) for part, values in kept.items()}}


def without_gates(pattern: str) -> str:
    """Returns a regular expression over paths that finds what another one does, except in the gates.

    Examples:
        >>> import re
        >>> [bool(re.search(without_gates(".*"), path)) for path in ("layers/mlp/up/kernel", "head_gates/decoder")]
        [True, False]
    """
    return rf"^(?!{GATES}/)(?=.*(?:{pattern}))"
