"""The Phi-3 family, Phi-4 and Phi-4-mini: heads rotated in part, LongRoPE, and fused projections in its checkpoints."""

from merit_jax.models.families import layout
from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoder_parsing import parse_decoder
from merit_jax.models.families.rope_parsing import with_one_window
from merit_jax.models.interface import DecoderConfig
from merit_jax.models.io.weight_map import WeightRow
from merit_jax.models.rope_settings import LongRopeScaling


def parse(config: Section) -> DecoderConfig:
    """Reads a Hugging Face Phi-3 config.

    Raises:
        ValueError: A key is missing or asks for what the decoder does not implement.
    """
    found = parse_decoder(config, "phi3", lambda full: with_one_window(full, partial=True))
    scaling, pairs = found.rope.scaling, found.rope.width(found.head_dim) // 2
    if isinstance(scaling, LongRopeScaling) and {len(scaling.short), len(scaling.long)} != {pairs}:
        raise ValueError(f"{config.where}: short_factor and long_factor: expected {pairs} numbers each")
    return found


def rows(config: DecoderConfig) -> tuple[WeightRow, ...]:
    """Returns the key table of a Phi-3 checkpoint."""
    heads = {"query": config.heads, "key": config.kv_heads, "value": config.kv_heads}
    projections = [
        *_fused("self_attn.qkv_proj", {f"attention/{name}": n * config.head_dim for name, n in heads.items()}),
        *layout.linear(f"{layout.LAYER}.self_attn.o_proj", "layers/attention/output"),
        *_fused("mlp.gate_up_proj", dict.fromkeys(("mlp/gate", "mlp/up"), config.mlp_size)),
        *layout.linear(f"{layout.LAYER}.mlp.down_proj", "layers/mlp/down"),
    ]
    return (*layout.ends(config), *layout.norms(config), *projections)


def _fused(key: str, widths: dict[str, int]) -> list[WeightRow]:
    """Returns the rows of projections that are one tensor, one below the other."""
    found, first, total = [], 0, sum(widths.values())
    for path, width in widths.items():
        row = WeightRow(f"{layout.LAYER}.{key}.weight", f"layers/{path}/kernel", transpose=True)
        found.append(row._replace(rows=(first, first + width, total)))
        first += width
    return found
