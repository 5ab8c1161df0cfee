"""The text families: alone, and as the decoder of a model with images."""

from collections.abc import Callable
from typing import NamedTuple

from merit_jax.models.families import gemma3, granite, layout, llama, mistral, olmo, phi3, qwen, smollm3
from merit_jax.models.families.config_parsing import Section
from merit_jax.models.interface import DecoderConfig
from merit_jax.models.io.weight_map import WeightRow


class DecoderFamily(NamedTuple):
    """A text family.

    Attributes:
        parse: Content of config.json, or its text_config -> the decoder's config.
        rows: Config -> key table.
    """

    parse: Callable[[Section], DecoderConfig]
    rows: Callable[[DecoderConfig], tuple[WeightRow, ...]] = layout.rows


DECODERS: dict[str, DecoderFamily] = {
    "llama": DecoderFamily(llama.parse),
    "qwen2": DecoderFamily(qwen.parse_qwen2),
    "qwen3": DecoderFamily(qwen.parse_qwen3),
    "qwen3_moe": DecoderFamily(qwen.parse_qwen3_moe),
    "mistral": DecoderFamily(mistral.parse_mistral),
    "ministral": DecoderFamily(mistral.parse_ministral),
    "ministral3": DecoderFamily(mistral.parse_ministral3),
    "mixtral": DecoderFamily(mistral.parse_mixtral, mistral.mixtral_rows),
    "smollm3": DecoderFamily(smollm3.parse),
    "olmo2": DecoderFamily(olmo.parse_olmo2),
    "olmo3": DecoderFamily(olmo.parse_olmo3),
    "gemma3_text": DecoderFamily(gemma3.parse_text),
    "phi3": DecoderFamily(phi3.parse, phi3.rows),
    "granite": DecoderFamily(granite.parse),
}
"""`model_type` of a config.json -> its family."""
