"""Plain vision towers and the decoders behind them in Hugging Face terms: configs with their defaults, and tensor names."""

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING

from models.families import llama, qwen2
from models.families.config_parsing import expect, integer, number
from models.interface import DecoderConfig
from models.io.weight_map import WeightRow, below
from models.modules.vit import ACTIVATIONS, ViTConfig

DECODERS = {"llama": llama, "qwen2": qwen2}
TOWERS = ("clip_vision_model", "siglip_vision_model", "idefics3_vision", "smolvlm_vision")
MASKED = TOWERS[2:]

_BLOCK = (
    ("layer_norm1", "attention_norm"),
    ("self_attn.q_proj", "query"),
    ("self_attn.k_proj", "key"),
    ("self_attn.v_proj", "value"),
    ("self_attn.out_proj", "output"),
    ("layer_norm2", "mlp_norm"),
    ("mlp.fc1", "up"),
    ("mlp.fc2", "down"),
)


def complete(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A config.json of two parts with every default of transformers written out.

    Raises:
        ValueError: A part is missing or of a kind that is not known, or a value is of the wrong type.
    """
    expect(raw, "quantization_config", (None,), where)
    for part in ("text_config", "vision_config"):
        if not isinstance(raw.get(part), Mapping):
            raise ValueError(f"{where}: {part} = {raw.get(part)!r}; expected the config of that part")
    try:
        return CONFIG_MAPPING[raw["model_type"]].from_dict(dict(raw)).to_dict()
    except Exception as error:  # transformers fails on odd values in any way: StrictDataclassError, AttributeError, ...
        raise ValueError(f"{where}: not a config that transformers can read: {error}") from None


def parse_text(full: Mapping[str, Any], tied: bool, where: str) -> DecoderConfig:
    """The decoder of a completed config.

    Raises:
        ValueError: It is of an unknown family, or asks for what the decoder does not do.
    """
    text, where = full["text_config"], f"{where}: text_config"
    expect(text, "model_type", tuple(DECODERS), where)
    return DECODERS[text["model_type"]].parse({**text, "tie_word_embeddings": tied}, where)


def parse_tower(full: Mapping[str, Any], where: str, **chosen: Any) -> ViTConfig:
    """The tower of a completed config.

    Args:
        full: What `complete` gives.
        where: The file, for error messages.
        **chosen: Which of the tower's outputs is wanted: depth, normed, skipped of `ViTConfig`.

    Raises:
        ValueError: It is of an unknown kind, or asks for what the tower does not do.
    """
    vision, where = full["vision_config"], f"{where}: vision_config"
    expect(vision, "model_type", TOWERS, where)
    expect(vision, "hidden_act", tuple(ACTIVATIONS), where)
    sizes = {
        "hidden_size": integer(vision, "hidden_size", where),
        "layers": integer(vision, "num_hidden_layers", where),
        "heads": integer(vision, "num_attention_heads", where),
        "mlp_size": integer(vision, "intermediate_size", where),
        "image_size": integer(vision, "image_size", where),
        "patch_size": integer(vision, "patch_size", where),
        "channels": integer(vision, "num_channels", where),
    }
    try:
        return ViTConfig(
            activation=vision["hidden_act"],
            norm_eps=number(vision, "layer_norm_eps", where),
            clip=vision["model_type"] == TOWERS[0],
            masked=vision["model_type"] in MASKED,
            **sizes,
            **chosen,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def tower_rows(config: ViTConfig, prefix: str) -> tuple[WeightRow, ...]:
    """Tensors of a tower whose names begin with `prefix`."""
    patch = (config.hidden_size, config.channels, config.patch_size, config.patch_size)
    rows = [
        WeightRow("embeddings.patch_embedding.weight", "patch/kernel", transpose=True, shape=patch),
        WeightRow("embeddings.position_embedding.weight", "positions"),
        *both("post_layernorm", "final_norm"),
    ]
    if config.clip:
        rows += [WeightRow("embeddings.class_embedding", "class_vector"), *both("pre_layrnorm", "first_norm")]
    else:
        rows.append(WeightRow("embeddings.patch_embedding.bias", "patch/bias"))
    for key, path in _BLOCK:
        rows += both(f"encoder.layers.{{layer}}.{key}", f"blocks/{path}")
    return below("vision", (row._replace(key=prefix + row.key) for row in rows))


def both(key: str, path: str, bias: bool = True) -> tuple[WeightRow, ...]:
    """Weight and bias of a norm (whose path ends so) or a projection."""
    name = "scale" if path.endswith("norm") else "kernel"
    weight = WeightRow(f"{key}.weight", f"{path}/{name}", transpose=name == "kernel")
    return (weight, WeightRow(f"{key}.bias", f"{path}/bias")) if bias else (weight,)


def text_rows(rows: tuple[WeightRow, ...], old: str, new: str) -> tuple[WeightRow, ...]:
    """Rows of a text model as part of a larger one, whose tensor names begin with `new` where they began with `old`."""
    return below(
        "decoder",
        (row._replace(key=new + row.key.removeprefix(old)) if row.key.startswith(old) else row for row in rows),
    )
