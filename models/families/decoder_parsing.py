"""Reads what the text families have in common from a config.json."""

from collections.abc import Callable, Mapping
from typing import Any

from merit_jax.models.families.config_parsing import Section, completed
from merit_jax.models.interface import DecoderConfig

REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
"""Sizes of a decoder that a file must state, though transformers has defaults."""
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh")
"""Nonlinearities of decoders, names of `merit_jax.models.interface.ACTIVATIONS`."""


def parse_decoder(
    config: Section,
    family: str,
    settings: Callable[[Section], Mapping[str, Any]],
    *,
    tied: bool = False,
    activation: str = "hidden_act",
) -> DecoderConfig:
    """Reads a text decoder.

    Args:
        config: Content of config.json, or a completed part of it.
        family: Name for `DecoderConfig.family`.
        settings: Completed config -> the fields of `DecoderConfig` in which families differ, `rope` among them.
        tied: Whether embedding and unembedding are one if the file does not say so.
        activation: Key of the MLP's nonlinearity.

    Raises:
        ValueError: A key is missing, of the wrong type, or asks for what the decoder does not implement.
    """
    for key in REQUIRED:
        config.integer(key)
    for key in ("num_key_value_heads", "head_dim"):
        config.integer(key, 0)
    config.number("rms_norm_eps", 0.0)
    full = completed(Section({**config.raw, "tie_word_embeddings": is_tied(config, tied)}, config.where))
    full.expect(activation, *ACTIVATIONS)
    heads, hidden = full.integer("num_attention_heads"), full.integer("hidden_size")
    common = {
        "vocab_size": full.integer("vocab_size"),
        "hidden_size": hidden,
        "layers": full.integer("num_hidden_layers"),
        "heads": heads,
        "kv_heads": full.integer("num_key_value_heads"),
        "head_dim": full.integer("head_dim", hidden // max(heads, 1)),
        "mlp_size": full.integer("intermediate_size"),
        "activation": full.raw[activation],
        "norm_eps": full.number("rms_norm_eps"),
        "tied": full.switch("tie_word_embeddings"),
    }
    return config.make(DecoderConfig, family=family, **{**common, **settings(full)})


def is_tied(config: Section, default: bool = False) -> bool:
    """Returns whether embedding and unembedding are one: the top level decides, then a nested text_config, then the default."""
    text = config.get("text_config")
    for level in (config, Section(text if isinstance(text, Mapping) else {}, config.where)):
        if level.get("tie_word_embeddings") is not None:
            level.expect("tie_word_embeddings", True, False)
            return bool(level.get("tie_word_embeddings"))
    return default


def attention_biases(full: Section) -> dict[str, bool]:
    """Returns the fields of `DecoderConfig` of `attention_bias`, which stands for all four projections."""
    return dict.fromkeys(("qkv_bias", "output_bias"), full.switch("attention_bias"))
