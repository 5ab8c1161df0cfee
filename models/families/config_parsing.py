"""Reading a Hugging Face config.json, strictly: what the decoder does not do is refused by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.interface import DecoderConfig, Llama3Scaling

LARGEST = 2**31 - 1
"""Largest whole number of a config: sizes are numbers of rows, columns and layers."""
_WIDEST = 1e300
"""Largest number: more is no size of anything; infinity and NaN are beyond it."""
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def expect(raw: Mapping[str, Any], key: str, allowed: Sequence[Any], where: str) -> None:
    """Raises ValueError unless `key` has one of the allowed values (None stands for absent)."""
    if raw.get(key) not in allowed:
        choices = " or ".join(repr(value) for value in allowed if value is not None)
        raise ValueError(f"{where}: {key} = {raw.get(key)!r:.80} is not supported; expected {choices or 'it absent'}")


def integer(raw: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    """A whole number of the config; absent or null gives the default.

    Raises:
        ValueError: It is absent and has no default, or is not a whole number.
    """
    value = raw.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST:
        raise ValueError(f"{where}: {key} = {value!r:.80}; expected a whole number, {LARGEST} at most")
    return value


def number(raw: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A number of the config; absent or null gives the default.

    Raises:
        ValueError: It is absent and has no default, or is not a number.
    """
    value = raw.get(key)
    value = default if value is None else value
    known = not isinstance(value, bool) and isinstance(value, int | float) and -_WIDEST <= value <= _WIDEST
    if not known:
        raise ValueError(f"{where}: {key} = {value!r:.80}; expected a number")
    return float(value)


def parse_decoder(raw: Mapping[str, Any], family: str, where: str) -> DecoderConfig:
    """What the text families have in common.

    Args:
        raw: Content of config.json.
        family: Name for `DecoderConfig.family`.
        where: The file, for error messages.

    Raises:
        ValueError: A key is missing, of the wrong type, or asks for what the decoder does not do.
    """
    _refuse_unsupported(raw, where)
    heads, hidden = integer(raw, "num_attention_heads", where), integer(raw, "hidden_size", where)
    rope = _rope_parameters(raw, where)
    sizes = {
        "vocab_size": integer(raw, "vocab_size", where),
        "layers": integer(raw, "num_hidden_layers", where),
        "kv_heads": integer(raw, "num_key_value_heads", where, heads),
        "head_dim": integer(raw, "head_dim", where, hidden // max(heads, 1)),
        "mlp_size": integer(raw, "intermediate_size", where),
    }
    try:
        return DecoderConfig(
            family=family,
            hidden_size=hidden,
            heads=heads,
            rope_theta=number(rope, "rope_theta", where, 10000.0),
            rope_scaling=_rope_scaling(rope, where),
            norm_eps=number(raw, "rms_norm_eps", where, 1e-6),
            tied=is_tied(raw, where),
            **sizes,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def is_tied(raw: Mapping[str, Any], where: str) -> bool:
    """Whether embedding and unembedding are one: the top level decides, then a nested text_config."""
    text = raw.get("text_config") or {}
    for level in (raw, text if isinstance(text, Mapping) else {}):
        if level.get("tie_word_embeddings") is not None:
            expect(level, "tie_word_embeddings", (True, False), where)
            return bool(level["tie_word_embeddings"])
    return False


def _refuse_unsupported(raw: Mapping[str, Any], where: str) -> None:
    expect(raw, "hidden_act", (None, "silu"), where)
    expect(raw, "quantization_config", (None,), where)
    if raw.get("use_sliding_window") is not False:
        uses_window = raw.get("use_sliding_window") or raw.get("model_type") != "qwen2"
        if uses_window and raw.get("sliding_window") is not None:
            raise ValueError(
                f"{where}: sliding_window = {raw['sliding_window']!r}: windowed attention is not supported"
            )
    kinds = raw.get("layer_types") or ()
    if not isinstance(kinds, list | tuple):
        raise ValueError(f"{where}: layer_types = {kinds!r:.80}; expected a list")
    for kind in kinds:
        expect({"layer_types": kind}, "layer_types", ("full_attention",), where)


def _rope_parameters(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """RoPE settings in one dict, from the new key (rope_parameters) or the old ones (rope_theta, rope_scaling)."""
    nested = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(nested, Mapping):
        raise ValueError(f"{where}: rope_parameters = {nested!r:.80}; expected a dictionary")
    merged = {"rope_theta": raw.get("rope_theta"), **nested}
    expect(merged, "partial_rotary_factor", (None, 1, 1.0), where)
    expect(raw, "partial_rotary_factor", (None, 1, 1.0), where)
    return merged


def _rope_scaling(rope: Mapping[str, Any], where: str) -> Llama3Scaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in (None, "default"):
        return None
    if kind != "llama3":
        raise ValueError(f"{where}: RoPE scaling of type {kind!r} is not supported; expected 'default' or 'llama3'")
    *factors, length = _LLAMA3
    return Llama3Scaling(*(number(rope, key, where) for key in factors), integer(rope, length, where))
