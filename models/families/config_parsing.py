"""Reads a Hugging Face config.json strictly: a setting that the models do not implement is refused by name."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from models.interface import DecoderConfig, Llama3Scaling

LARGEST = 2**31 - 1
"""Largest whole number of a config: sizes are numbers of rows, columns and layers."""
_WIDEST = 1e300
"""Largest number: more is no size of anything; infinity and NaN are beyond it."""
Made = TypeVar("Made")


class Section:
    """A dictionary of a config.json whose values are checked as they are read; a ValueError names the file and the key.

    Attributes:
        raw: The dictionary.
        where: The file, and the key of the dictionary in it, for error messages.
    """

    def __init__(self, raw: Mapping[str, Any], where: str):
        self.raw, self.where = raw, where

    def get(self, key: str, default: Any = None) -> Any:
        """Returns a value unchecked; absent or null gives the default."""
        value = self.raw.get(key)
        return default if value is None else value

    def expect(self, key: str, *allowed: Any) -> None:
        """Refuses a value that is none of those allowed (None stands for absent)."""
        if self.raw.get(key) not in allowed:
            choices = " or ".join(repr(value) for value in allowed if value is not None)
            self.refuse(key, self.raw.get(key), f" is not supported; expected {choices or 'it absent'}")

    def integer(self, key: str, default: int | None = None) -> int:
        """Returns a whole number; refuses an absent one without a default."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST:
            self.refuse(key, value, f"; expected a whole number, {LARGEST} at most")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Returns a number; refuses an absent one without a default."""
        value = self.get(key, default)
        known = not isinstance(value, bool) and isinstance(value, int | float) and -_WIDEST <= value <= _WIDEST
        return float(value) if known else self.refuse(key, value, "; expected a number")

    def section(self, key: str) -> "Section":
        """Returns a nested dictionary; refuses anything else."""
        found = self.raw.get(key)
        if not isinstance(found, Mapping):
            self.refuse(key, found, "; expected a dictionary")
        return Section(found, f"{self.where}: {key}")

    def make(self, kind: Callable[..., Made], *fields: Any, **named: Any) -> Made:
        """Returns `kind(*fields, **named)`; a ValueError of it names the file."""
        try:
            return kind(*fields, **named)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None

    def refuse(self, key: str, value: Any, reason: str) -> NoReturn:
        """Raises a ValueError about the value of a key."""
        raise ValueError(f"{self.where}: {key} = {value!r:.80}{reason}")


def parse_decoder(config: Section, family: str, **fields: Any) -> DecoderConfig:
    """Reads the settings that the text families have in common.

    Args:
        config: Content of config.json.
        family: Name for `DecoderConfig.family`.
        **fields: Further fields of `DecoderConfig`.

    Raises:
        ValueError: A key is missing, of the wrong type, or asks for what the decoder does not implement.
    """
    _refuse_unsupported(config)
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    rope = rope_settings(config)
    for level in (rope, config):
        level.expect("partial_rotary_factor", None, 1, 1.0)
    return config.make(
        DecoderConfig,
        family=family,
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        layers=config.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=config.integer("num_key_value_heads", heads),
        head_dim=config.integer("head_dim", hidden // max(heads, 1)),
        mlp_size=config.integer("intermediate_size"),
        rope_theta=rope.number("rope_theta", 10000.0),
        rope_scaling=_rope_scaling(rope),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        tied=is_tied(config),
        **fields,
    )


def is_tied(config: Section) -> bool:
    """Returns whether embedding and unembedding are one: the top level decides, then a nested text_config."""
    text = config.get("text_config")
    for level in (config, Section(text if isinstance(text, Mapping) else {}, config.where)):
        if level.get("tie_word_embeddings") is not None:
            level.expect("tie_word_embeddings", True, False)
            return bool(level.get("tie_word_embeddings"))
    return False


def rope_settings(config: Section) -> Section:
    """Returns the RoPE settings, from the new key (rope_parameters) or the old ones (rope_theta, rope_scaling)."""
    nested = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(nested, Mapping):
        config.refuse("rope_parameters", nested, "; expected a dictionary")
    return Section({"rope_theta": config.get("rope_theta"), **nested}, config.where)


def _refuse_unsupported(config: Section) -> None:
    config.expect("hidden_act", None, "silu")
    config.expect("quantization_config", None)
    if config.raw.get("use_sliding_window") is not False:
        uses_window = config.get("use_sliding_window") or config.get("model_type") != "qwen2"
        if uses_window and config.get("sliding_window") is not None:
            config.refuse("sliding_window", config.get("sliding_window"), ": windowed attention is not supported")
    kinds = config.get("layer_types") or ()
    if not isinstance(kinds, list | tuple):
        config.refuse("layer_types", kinds, "; expected a list")
    for kind in kinds:
        Section({"layer_types": kind}, config.where).expect("layer_types", "full_attention")


def _rope_scaling(rope: Section) -> Llama3Scaling | None:
    kind = rope.raw.get("rope_type", rope.raw.get("type", "default"))
    if kind in (None, "default"):
        return None
    if kind != "llama3":
        raise ValueError(
            f"{rope.where}: RoPE scaling of type {kind!r} is not supported; expected 'default' or 'llama3'"
        )
    return Llama3Scaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_length=rope.integer("original_max_position_embeddings"),
    )
