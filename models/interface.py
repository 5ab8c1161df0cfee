"""What a decoder is made of (`DecoderConfig`) and what it offers (`Model`)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

Array = jax.Array | np.ndarray

Params = Mapping[str, Any]
"""Nested dict of arrays."""

CACHE_ROW_AXIS = 1
"""Axis of every leaf of a cache that counts the rows: `jnp.repeat(leaf, n, axis=1)` copies each row n times."""

ATTENTION = (None, "xla", "cudnn")


class Llama3Scaling(NamedTuple):
    """Stretching of the low RoPE frequencies, as in Llama 3.1 and later.

    Attributes:
        factor: Divisor of the frequencies of long wavelengths.
        low_freq_factor: Wavelengths above `original_length / low_freq_factor` tokens are divided by `factor`.
        high_freq_factor: Wavelengths below `original_length / high_freq_factor` tokens stay; between, they blend.
        original_length: Context length of pre-training, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a text decoder, and switches that change its speed but not its function.

    Attributes:
        family: "llama" or "qwen2".
        vocab_size: Rows of the embedding.
        hidden_size: Width of the residual stream.
        layers: Number of layers.
        heads: Query heads.
        kv_heads: Key and value heads; divides `heads`.
        head_dim: Width of one head; even.
        mlp_size: Width of the SwiGLU.
        rope_theta: Base of the RoPE wavelengths.
        rope_scaling: Stretching of the RoPE frequencies; None for none.
        norm_eps: Added to the mean square in RMSNorm.
        qkv_bias: Whether the query, key and value projections have biases.
        tied: Whether the embedding is also the unembedding.
        dtype: Type of the computation.
        param_dtype: Type of the parameters.
        remat: Recompute activations in the backward pass instead of storing them.
        scan_unroll: Layers per iteration of the layer loop; True for all. More is faster to run and slower to compile.
        attention: Implementation for `jax.nn.dot_product_attention`.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_size: int
    rope_theta: float = 10000.0
    rope_scaling: Llama3Scaling | None = None
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    tied: bool = False
    dtype: Any = "float32"
    param_dtype: Any = "float32"
    remat: bool = False
    scan_unroll: int = 1
    attention: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype).name)
        object.__setattr__(self, "param_dtype", jnp.dtype(self.param_dtype).name)
        for name in ("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "head_dim", "mlp_size", "scan_unroll"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim = {self.head_dim}: RoPE rotates pairs, so it must be even")
        if self.attention not in ATTENTION:
            raise ValueError(f"attention = {self.attention!r}: expected one of {ATTENTION}")


class KVCache(NamedTuple):
    """Keys and values of the tokens read so far; rows on axis `CACHE_ROW_AXIS`.

    Attributes:
        k: Rotated keys, by slot (place in the sequence).
        v: Values, by slot.
    """

    k: Float[Array, "layers b slots kv_heads head_dim"]
    v: Float[Array, "layers b slots kv_heads head_dim"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A language model as pure functions of its params. `batch` is anything with the fields of a row batch.

    A batch has `tokens`, `positions` and `segments`, each i32[b, t], and `images`.

    Attributes:
        config: What the model was built from.
        init: rng -> random params, a nested dict of arrays.
        hidden: (params, batch) -> final, normalised hidden states [b, t, d], in `config.dtype`.
        unembed: (params, hidden [..., d]) -> float32 logits [..., v].
        init_cache: (rows, length) -> an empty `KVCache`.
        prefill: (params, batch, cache) -> (hidden, cache): reads right-padded prompts, one example to a row.
        decode: (params, tokens i32[b, t], slots i32[b, t], cache) -> (hidden, cache): appends tokens, t >= 1, each
            seeing the slots up to its own; tokens at slots past the end of the cache are ignored.
        logical_axes: Tree like the params; per leaf, a tuple of one logical name per dimension.
        abstract: Tree like the params; per leaf, its shape and dtype.
    """

    config: DecoderConfig
    init: Callable[..., Any]
    hidden: Callable[..., Any]
    unembed: Callable[..., Any]
    init_cache: Callable[..., Any]
    prefill: Callable[..., Any]
    decode: Callable[..., Any]
    logical_axes: Any
    abstract: Any
