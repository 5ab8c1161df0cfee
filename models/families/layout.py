"""The names of a decoder's tensors in Hugging Face checkpoints, those of Llama, as the config asks for them."""

from merit_jax.models.interface import DecoderConfig
from merit_jax.models.io.weight_map import WeightRow

LAYER = "model.layers.{layer}"
NORMS = {
    "before": (("input_layernorm", "attention_norm"), ("post_attention_layernorm", "mlp_norm")),
    "after": (
        ("post_attention_layernorm", "attention_out_norm"),
        ("post_feedforward_layernorm", "mlp_out_norm"),
    ),
    "both": (
        ("input_layernorm", "attention_norm"),
        ("post_attention_layernorm", "attention_out_norm"),
        ("pre_feedforward_layernorm", "mlp_norm"),
        ("post_feedforward_layernorm", "mlp_out_norm"),
    ),
}
"""Name of `merit_jax.models.interface.NORMS` -> (name in the checkpoint, name of ours) of a layer's norms."""
ATTENTION = (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("o_proj", "output"))
MLP = (("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down"))


def rows(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Returns the key table of a decoder."""
    return (*ends(config), *norms(config), *attention(config), *mlp(config))


def ends(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Returns the rows of what is not in layers, and of what old versions of transformers stored of RoPE."""
    head = WeightRow("lm_head.weight", "embed/embedding", optional=True)
    return (
        WeightRow("model.embed_tokens.weight", "embed/embedding"),
        WeightRow("model.norm.weight", "final_norm/scale"),
        head if config.tied else head._replace(path="unembed/kernel", transpose=True, optional=False),
        WeightRow(f"{LAYER}.self_attn.rotary_emb.inv_freq", None),
    )


def norms(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Returns the rows of norms."""
    found = [WeightRow(f"{LAYER}.{key}.weight", f"layers/{name}/scale") for key, name in NORMS[config.norms]]
    if config.query_key_norm is not None:
        for key, name in (("q_norm", "query_norm"), ("k_norm", "key_norm")):
            found.append(WeightRow(f"{LAYER}.self_attn.{key}.weight", f"layers/attention/{name}/scale"))
    return tuple(found)


def attention(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Returns the rows of the attention's projections."""
    found = []
    for key, name in ATTENTION:
        bias = config.output_bias if name == "output" else config.qkv_bias
        found += linear(f"{LAYER}.self_attn.{key}", f"layers/attention/{name}", bias=bias)
    return tuple(found)


def mlp(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Returns the rows of the MLP, or of the router and the experts."""
    if config.experts is not None:
        return experts(f"{LAYER}.mlp", MLP)
    return tuple(row for key, name in MLP for row in linear(f"{LAYER}.mlp.{key}", f"layers/mlp/{name}", config.mlp_bias))


def experts(prefix: str, names: tuple[tuple[str, str], ...]) -> tuple[WeightRow, ...]:
    """Returns the rows of a router and of the experts' projections.

    Args:
        prefix: Beginning of the tensor names.
        names: (name in the checkpoint, name of ours) of an expert's projections.
    """
    found = linear(f"{prefix}.gate", "layers/mlp/router")
    for key, name in names:
        found += linear(f"{prefix}.experts.{{expert}}.{key}", f"layers/mlp/{name}")
    return found


def linear(key: str, path: str, bias: bool = False) -> tuple[WeightRow, ...]:
    """Returns the rows of a projection."""
    kernel = WeightRow(f"{key}.weight", f"{path}/kernel", transpose=True)
    return (kernel, WeightRow(f"{key}.bias", f"{path}/bias")) if bias else (kernel,)
