"""Plain vision towers and the decoders behind them in Hugging Face terms: configs with their defaults, and tensor names."""

from typing import Any

from merit_jax.models.families.config_parsing import PARTS, Section, completed
from merit_jax.models.families.decoders import DECODERS
from merit_jax.models.interface import DecoderConfig
from merit_jax.models.io.weight_map import WeightRow, below
from merit_jax.models.modules.vit import GELUS, ViTConfig

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


def complete(config: Section) -> Section:
    """Returns a config.json of two parts with every default of transformers written out.

    Raises:
        ValueError: A part is missing or of a kind that is not known, or a value is of the wrong type.
    """
    for part in PARTS:
        config.section(part)
    return completed(config)


def parse_text(full: Section, tied: bool) -> DecoderConfig:
    """Reads the decoder of a completed config.

    Raises:
        ValueError: It is of an unknown family, or asks for what the decoder does not implement.
    """
    text = full.section("text_config")
    text.expect("model_type", *DECODERS)
    return DECODERS[text.raw["model_type"]].parse(Section({**text.raw, "tie_word_embeddings": tied}, text.where))


def parse_tower(full: Section, **chosen: Any) -> ViTConfig:
    """Reads the tower of a completed config.

    Args:
        full: Result of `complete`.
        **chosen: The output of the tower that is used: depth, normed, skipped of `ViTConfig`.

    Raises:
        ValueError: It is of an unknown kind, or asks for what the tower does not implement.
    """
    vision = full.section("vision_config")
    vision.expect("model_type", *TOWERS)
    vision.expect("hidden_act", *GELUS)
    vision.expect("is_causal", None, False)
    layers = vision.integer("num_hidden_layers")
    return vision.make(
        ViTConfig,
        hidden_size=vision.integer("hidden_size"),
        layers=layers,
        heads=vision.integer("num_attention_heads"),
        mlp_size=vision.integer("intermediate_size"),
        image_size=vision.integer("image_size"),
        patch_size=vision.integer("patch_size"),
        channels=vision.integer("num_channels"),
        activation=vision.raw["hidden_act"],
        norm_eps=vision.number("layer_norm_eps"),
        clip=vision.raw["model_type"] == TOWERS[0],
        masked=vision.raw["model_type"] in MASKED,
        **{"depth": layers, **chosen},
    )


def tower_rows(config: ViTConfig, prefix: str) -> tuple[WeightRow, ...]:
    """Returns the key table of a tower whose tensor names begin with `prefix`."""
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
    """Returns the rows of weight and bias of a norm (whose path ends so) or a projection."""
    name = "scale" if path.endswith("norm") else "kernel"
    weight = WeightRow(f"{key}.weight", f"{path}/{name}", transpose=name == "kernel")
    return (weight, WeightRow(f"{key}.bias", f"{path}/bias")) if bias else (weight,)


def text_rows(config: DecoderConfig, old: str, new: str) -> tuple[WeightRow, ...]:
    """Returns the key table of a decoder inside a larger model, whose tensor names begin with `new` in place of `old`."""
    rows = DECODERS[config.family].rows(config)
    return below("decoder", (renamed(row, old, new) for row in rows))


def renamed(row: WeightRow, old: str, new: str) -> WeightRow:
    """Returns the row with its tensor name beginning with `new` where it began with `old`."""
    return row._replace(key=new + row.key.removeprefix(old)) if row.key.startswith(old) else row
