"""The registry of families: a family is a file, and a line of `FAMILIES`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from merit_jax.models.families import gemma3_images, idefics3, llava, qwen2_5_vl, qwen3_vl
from merit_jax.models.families.config_parsing import Section
from merit_jax.models.families.decoders import DECODERS
from merit_jax.models.interface import DecoderConfig, VisionLanguageConfig
from merit_jax.models.io.weight_map import WeightRow
from merit_jax.models.processing.qwen2_5_vl_images import QwenReader

Table = tuple[WeightRow, ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """The parts of a model family.

    Attributes:
        parse: config.json -> config of the model.
        rows: Config -> key table.
        reader: (folder, config, tokenizer) -> reader of the model's images; None for a text model.
    """

    parse: Callable[[Section], Any]
    rows: Callable[[Any], Table]
    reader: Callable[..., Any] | None = None


FAMILIES: dict[str, Family] = {
    **{name: Family(decoder.parse, decoder.rows) for name, decoder in DECODERS.items()},
    "qwen2_5_vl": Family(qwen2_5_vl.parse, qwen2_5_vl.rows, QwenReader),
    "qwen3_vl": Family(qwen3_vl.parse, qwen3_vl.rows, QwenReader),
    "gemma3": Family(gemma3_images.parse, gemma3_images.rows, gemma3_images.Reader),
    "llava": Family(llava.parse, llava.rows, llava.Reader),
    "idefics3": Family(idefics3.parse, idefics3.rows, idefics3.Reader),
    "smolvlm": Family(idefics3.parse, idefics3.rows, idefics3.Reader),
}
"""`model_type` of a config.json -> its family; a text family is a line of `DECODERS`."""


def parse_config(raw: Mapping[str, Any], where: str) -> DecoderConfig | VisionLanguageConfig:
    """Returns the config of the model that a Hugging Face config describes.

    Args:
        raw: Content of config.json.
        where: The file, for error messages.

    Raises:
        ValueError: The family is unknown, or the config asks for what the model does not implement.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"{where}: model_type = {kind!r:.80} is not supported; known families: {', '.join(FAMILIES)}")
    return FAMILIES[kind].parse(Section(raw, where))
