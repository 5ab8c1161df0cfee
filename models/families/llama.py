"""The Llama family: Llama 1 to 3.3, SmolLM and SmolLM2, and others with `model_type` "llama"."""

from merit_jax.models.families.config_parsing import Section, parse_decoder
from merit_jax.models.interface import DecoderConfig
from merit_jax.models.io.weight_map import WeightRow

ROWS = (
    WeightRow("model.embed_tokens.weight", "embed/embedding"),
    WeightRow("model.layers.{layer}.input_layernorm.weight", "layers/attention_norm/scale"),
    WeightRow("model.layers.{layer}.self_attn.q_proj.weight", "layers/attention/query/kernel", transpose=True),
    WeightRow("model.layers.{layer}.self_attn.k_proj.weight", "layers/attention/key/kernel", transpose=True),
    WeightRow("model.layers.{layer}.self_attn.v_proj.weight", "layers/attention/value/kernel", transpose=True),
    WeightRow("model.layers.{layer}.self_attn.o_proj.weight", "layers/attention/output/kernel", transpose=True),
    WeightRow("model.layers.{layer}.post_attention_layernorm.weight", "layers/mlp_norm/scale"),
    WeightRow("model.layers.{layer}.mlp.gate_proj.weight", "layers/mlp/gate/kernel", transpose=True),
    WeightRow("model.layers.{layer}.mlp.up_proj.weight", "layers/mlp/up/kernel", transpose=True),
    WeightRow("model.layers.{layer}.mlp.down_proj.weight", "layers/mlp/down/kernel", transpose=True),
    WeightRow("model.norm.weight", "final_norm/scale"),
)
UNTIED = WeightRow("lm_head.weight", "unembed/kernel", transpose=True)
STORED_TIED = WeightRow("lm_head.weight", "embed/embedding", optional=True)
RECOMPUTED = WeightRow("model.layers.{layer}.self_attn.rotary_emb.inv_freq", None)


def parse(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Llama config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    for key in ("attention_bias", "mlp_bias"):
        config.expect(key, None, False)
    return parse_decoder(config, "llama")


def rows(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Returns the key table of a Llama checkpoint."""
    return (*ROWS, STORED_TIED if config.tied else UNTIED, RECOMPUTED)
