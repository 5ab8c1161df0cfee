"""The configs of models (`DecoderConfig`, `VisionLanguageConfig`) and their functions (`Model`)."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32

from merit_jax.models.heads import HeadCount
from merit_jax.models.placement import Placement
from merit_jax.models.rope_settings import Rope

Array = jax.Array | np.ndarray

Params = Mapping[str, Any]
"""Nested dict of arrays."""

CACHE_ROW_AXIS = 1
"""Axis of every leaf of a cache that counts the rows: `jnp.repeat(leaf, n, axis=1)` copies each row n times."""

ATTENTION = ("auto", "xla", "chunked", "splash", "cudnn")
"""Implementations of attention, as `merit_jax.models.modules.attention.implementation_of` chooses among them."""

REMAT: Mapping[str, Callable[..., Any] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""Name -> the policy for what is kept of a layer for the backward pass: all, its products with parameters, or its input alone."""

SWITCHES = ("dtype", "param_dtype", "remat", "scan_unroll", "attention", "placement")
"""Fields of `StackConfig` that change how a model is computed but not its function."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig:
    """The settings that every part of a model has: the epsilon of its norms, and `SWITCHES`.

    Attributes:
        norm_eps: Added to the mean square (or variance) in normalisation.
        dtype: Type of the computation.
        param_dtype: Type of the parameters.
        remat: A name of `REMAT`; what is not kept is recomputed in the backward pass.
        scan_unroll: Layers per iteration of the layer loop; True for all. More is faster to run and slower to compile.
        attention: Implementation of attention, one of `ATTENTION`.
        placement: Placement of activations on a mesh; None leaves that to the compiler.
    """

    norm_eps: float = 1e-6
    dtype: Any = "float32"
    param_dtype: Any = "float32"
    remat: str = "none"
    scan_unroll: int = 1
    attention: str = "auto"
    placement: Placement | None = None

    def __post_init__(self):
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype).name)
        object.__setattr__(self, "param_dtype", jnp.dtype(self.param_dtype).name)
        self.check_positive("scan_unroll")
        if self.attention not in ATTENTION:
            raise ValueError(f"attention = {self.attention!r}: expected one of {', '.join(ATTENTION)}")
        if self.remat not in REMAT:
            raise ValueError(f"remat = {self.remat!r}: expected one of {', '.join(REMAT)}")

    def check_positive(self, *names: str) -> None:
        """Raises ValueError unless the fields are at least 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")


ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
}
"""Nonlinearities by their Hugging Face names."""

NORMS: Mapping[str, tuple[bool, bool]] = {"before": (True, False), "after": (False, True), "both": (True, True)}
"""Where the norms of a layer are -> whether one is before, and one after, its attention and its MLP."""


class LayerKind(NamedTuple):
    """The kind of a layer: the settings in which the layers of a decoder may differ.

    Attributes:
        rope: The layer's RoPE; None: its tokens have no positions (NoPE).
        window: Tokens that a token sees, itself included; 0: itself and all before it.
    """

    rope: Rope | None
    window: int = 0


class Experts(NamedTuple):
    """A layer's MLPs, of which each token uses some (mixture of experts).

    Attributes:
        total: MLPs of a layer.
        chosen: MLPs that a token uses, those with the highest router scores.
        normalised: Whether their weights, softmax over all, are divided by their sum.
    """

    total: int
    chosen: int
    normalised: bool = True


class QueryGrowth(NamedTuple):
    """Growth of queries with their position: by `1 + beta log(1 + floor(position / length))` (Llama 4, Ministral 3).

    Attributes:
        beta: As above; above 0.
        length: Tokens up to which queries stay as they are.
    """

    beta: float
    length: int


@dataclasses.dataclass(frozen=True)
class DecoderConfig(StackConfig):
    """Architecture of a text decoder.

    Attributes:
        family: Key of the decoder's own family in `merit_jax.models.families.registry`, such as "llama" or "qwen2".
        vocab_size: Rows of the embedding.
        hidden_size: Width of the residual stream.
        layers: Number of layers.
        heads: Query heads.
        kv_heads: Key and value heads; divides `heads`.
        head_dim: Width of one head.
        mlp_size: Width of the gated MLP, or of each expert.
        rope: RoPE of the layers, unless `kinds` gives each its own.
        kinds: Kind of every layer; empty: all have `rope` and see all before them.
        mrope_section: Numbers of rotated pairs whose angle follows the temporal, the height and the width position (M-RoPE);
            None where a token has one position.
        mrope_interleaved: Whether pairs of the three take turns; if not, they come one after the other.
        qkv_bias: Whether the query, key and value projections have biases.
        output_bias: Whether the attention's output projection has one.
        mlp_bias: Whether the MLP's projections have them.
        query_key_norm: RMSNorm of queries and keys, each "head" by itself, or over the "width" of all; None: none.
        query_growth: Growth of queries with their position; None: none.
        attention_scale: Factor of query-key products; None: 1 / sqrt(head_dim).
        norms: Where the norms of a layer are, a name of `NORMS`.
        norm_offset: Added to the scales of norms (Gemma: 1).
        activation: Nonlinearity of the MLP, a name of `ACTIVATIONS`.
        experts: The layer's experts; None: one MLP.
        embedding_scale: Factor of token vectors.
        residual_scale: Factor of what attention and MLP add to the residual stream.
        logit_scale: Factor of logits.
        logit_cap: c in `c tanh(logits / c)`; None: logits have no bound.
        tied: Whether the embedding is also the unembedding.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_size: int
    rope: Rope = Rope()  # noqa: RUF009 - it is immutable
    kinds: tuple[LayerKind, ...] = ()
    mrope_section: tuple[int, int, int] | None = None
    mrope_interleaved: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    query_key_norm: str | None = None
    query_growth: QueryGrowth | None = None
    attention_scale: float | None = None
    norms: str = "before"
    norm_offset: float = 0.0
    activation: str = "silu"
    experts: Experts | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_cap: float | None = None
    tied: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.check_positive("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "head_dim", "mlp_size")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}")
        if self.kinds and len(self.kinds) != self.layers:
            raise ValueError(f"there are {len(self.kinds)} kinds of layers for layers = {self.layers}")
        for rope in {self.rope, *(rope for rope in self.ropes if rope is not None)}:
            width = rope.width(self.head_dim)
            if width % 2:
                raise ValueError(f"head_dim = {self.head_dim}: RoPE rotates pairs, so {width} must be even")
        if self.experts is not None and not 1 <= self.experts.chosen <= self.experts.total:
            raise ValueError(f"a token cannot use {self.experts.chosen} of {self.experts.total} experts")
        if self.mrope_section is not None and sum(self.mrope_section) != self.head_dim // 2:
            raise ValueError(
                f"mrope_section = {self.mrope_section} sums to {sum(self.mrope_section)}, but a head has "
                f"head_dim / 2 = {self.head_dim // 2} rotated pairs"
            )

    @property
    def ropes(self) -> tuple[Rope | None, ...]:
        """The different ropes of the layers, in the order of their first layer; None: no positions."""
        return tuple(dict.fromkeys(kind.rope for kind in self.kinds or (LayerKind(self.rope),)))


Vision = TypeVar("Vision", bound=StackConfig)
Projector = TypeVar("Projector", bound=StackConfig)


@dataclasses.dataclass(frozen=True)
class VisionLanguageConfig(Generic[Vision, Projector]):
    """A decoder with a vision tower and a projector from the tower's features to token vectors.

    Attributes:
        family: Key in `merit_jax.models.families.registry`.
        text: The decoder.
        vision: The tower; its type is a key of `merit_jax.models.modules.vision_language.PARTS`.
        projector: The projector; likewise.
        image_token: Id of the token that stands for one image feature.
        image_blocks: Whether the neighbouring tokens of an image see each other in both directions.
    """

    family: str
    text: DecoderConfig
    vision: Vision
    projector: Projector
    image_token: int
    image_blocks: bool = False

    def __post_init__(self):
        if not 0 <= self.image_token < self.text.vocab_size:
            raise ValueError(f"the image token {self.image_token} is not among {self.text.vocab_size} tokens")


class KVCache(NamedTuple):
    """The keys and values of the tokens read until now; rows on axis `CACHE_ROW_AXIS`.

    Attributes:
        k: Rotated keys, by slot (place in the sequence).
        v: Values, by slot.
        offset: RoPE position minus slot, of the tokens that come after the prompt (0 for text).
    """

    k: Float[jax.Array, "layers b slots kv_heads head_dim"]
    v: Float[jax.Array, "layers b slots kv_heads head_dim"]
    offset: Int32[jax.Array, "1 b"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A language model as pure functions of its params; a batch has `tokens`, `positions`, `segments`, i32[b, t], and `images`.

    Attributes:
        config: The architecture and its switches.
        init: rng -> random params, a nested dict of arrays.
        hidden: (params, batch) -> final, normalised hidden states [b, t, d], in `config.dtype`.
        unembed: (params, hidden [..., d]) -> float32 logits [..., v].
        init_cache: (rows, length) -> an empty `KVCache`.
        prefill: (params, batch, cache) -> (hidden, cache): reads right-padded prompts, one to a row.
        decode: (params, tokens i32[b, t], slots i32[b, t], cache) -> (hidden, cache): appends tokens, t >= 1, each
            seeing the slots up to its own; tokens at slots past the end of the cache are ignored.
        input_grams: (params, batch) -> (grams, counts) of the inputs of every kernel by its path, "/"-joined: `Xᵀ X`, float32
            [*layers, in, in], over the tokens and patches that are no padding, and their numbers, float32 [*layers].
        heads: "decoder", and "vision" if there is a tower -> its attention heads.
        gated: (gates of some parts) -> a `Model` of the same params whose heads' outputs are multiplied by them, differentiably.
        head_entropies: (params, batch) -> (hidden as above, part -> `HeadEntropy`); without parts that the batch has nothing for.
        head_norms: (params) -> part -> Frobenius norms [layers, heads] of all weights that a head has or reads.
        with_gates: (params, gates) -> params with which the model computes what the gated one does with the given ones.
        twice: () -> the same model with forward derivatives: attention of all pairs, where other implementations have none.
        adapted: (form, rank, alpha, targets, among) -> an `adapters.attach.Adapter` of the kernels that `Options` says.
        logical_axes: Tree like the params; per leaf, a tuple of one logical name per dimension.
        abstract: Tree like the params; per leaf, its shape and dtype.
    """

    config: DecoderConfig | VisionLanguageConfig
    init: Callable[..., Any]
    hidden: Callable[..., Any]
    unembed: Callable[..., Any]
    init_cache: Callable[..., Any]
    prefill: Callable[..., Any]
    decode: Callable[..., Any]
    input_grams: Callable[..., Any]
    heads: Mapping[str, HeadCount]
    gated: Callable[..., Any]
    head_entropies: Callable[..., Any]
    head_norms: Callable[..., Any]
    with_gates: Callable[..., Any]
    twice: Callable[[], "Model"]
    adapted: Callable[..., Any]
    logical_axes: Any
    abstract: Any
