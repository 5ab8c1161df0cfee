"""Differences of two config.json in what they compute, with the defaults of transformers written out."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from merit_jax.models.processing.config_defaults import with_defaults

_NEUTRAL = re.compile(
    r"_.*|architectures|auto_map|attn_implementation|(torch_)?dtype|transformers_version|unsloth_.*|problem_type|id2label|label2id|num_labels|"
    r"initializer_(range|factor)|gradient_checkpointing|use_return_dict|return_dict|output_router_logits|pretraining_tp|"
    r"chunk_size_feed_forward|task_specific_params|tokenizer_class|model_max_length|name_or_path|"
    r".*(dropout|pdrop|layerdrop|drop_path|aux_loss|z_loss|jitter).*"
)
"""A part of a key's name -> it names, loads, trains or generates, and the logits of a text do not depend on it."""
_DEPTH, _MOST_LAYERS = re.compile(r"layer|depth|block|label"), 10_000
_BY_LENGTH = {"dynamic", "yarn", "longrope"}
"""Types of RoPE that depend on `max_position_embeddings`."""
_LABELS = re.compile(r"_name_or_path|architectures|auto_map|(torch_)?dtype|transformers_version|unsloth_.*")
"""A key at the top level -> it labels a config and is read by no other key's default."""
_DECODERS = """
arcee bitnet cohere cohere2 deepseek_v2 deepseek_v3 ernie4_5 exaone4 falcon gemma gemma2 gemma3_text glm glm4 gpt2
gpt_neox gpt_oss granite granitemoe helium hunyuan_v1_dense internlm3 jamba lfm2 llama mamba2 minimax ministral
ministral3 mistral mixtral nemotron olmo olmo2 olmo3 olmoe opt phi phi3 qwen2 qwen2_moe qwen3 qwen3_moe seed_oss
smollm3 stablelm starcoder2
"""
AS_WRITTEN = frozenset(_DECODERS.split())
"""Model types of text decoders, of whose configs transformers keeps what is written at the top level."""


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with every default of transformers, in its present spelling; as it is if transformers cannot read it."""
    return _completed(config) or dict(config)


def setting_of(config: Mapping[str, Any], key: str) -> Any:
    """Returns a setting of a model's text decoder, with the default of transformers where it is not written.

    The top level decides, then a nested `text_config`. transformers, which takes long to import, is left alone where a decoder's
    config says it.

    Args:
        config: Content of a config.json.
        key: Name of the setting.

    Returns:
        Its value; None where neither level has it.

    Examples:
        >>> setting_of({"model_type": "llama", "tie_word_embeddings": True}, "tie_word_embeddings")
        True
        >>> setting_of({"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 320}}, "vocab_size")
        320
    """
    if config.get("model_type") in AS_WRITTEN and config.get(key) is not None:
        return config[key]
    full = completed(config)
    text = full.get("text_config")
    levels = (full, text if isinstance(text, Mapping) else {})
    return next((level[key] for level in levels if level.get(key) is not None), None)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Returns whether embedding and unembedding are one."""
    return bool(setting_of(config, "tie_word_embeddings"))


def config_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the keys that change what a model computes and that differ.

    Args:
        ours: Content of a config.json.
        theirs: Content of another.

    Returns:
        Key, with dots between the levels, -> our value and theirs; None for an absent one. A model type that differs comes alone.

    Examples:
        >>> old = {"model_type": "llama", "rope_theta": 5e5, "torch_dtype": "float16"}
        >>> new = {"model_type": "llama", "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "rms_norm_eps": 1e-5}
        >>> config_differences(old, new)
        {'rms_norm_eps': (1e-06, 1e-05)}
    """
    if ours.get("model_type") != theirs.get("model_type"):
        return {"model_type": (ours.get("model_type"), theirs.get("model_type"))}
    if _unlabelled(ours) == _unlabelled(theirs):
        return {}
    full_ours, full_theirs = _completed(ours), _completed(theirs)
    pair = (full_ours, full_theirs) if full_ours and full_theirs else (ours, theirs)  # both as they are, or neither
    one, other = (dict(_flat(config)) for config in pair)
    keys = [key for key in sorted(one.keys() | other.keys()) if not _neutral(key, one, other)]
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def _completed(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the completed config; None where transformers cannot read it, or would write out too many layers."""
    if any(
        value > _MOST_LAYERS and _DEPTH.search(key) for key, value in _flat(config) if isinstance(value, int | float)
    ):
        return None
    try:
        return with_defaults(config)
    except Exception:  # a kind that it does not know, or a value that it fails on in any way
        return None


def _unlabelled(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not _LABELS.fullmatch(key)}


def _neutral(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether no logit depends on a key, given all keys of both configs."""
    level, _, name = key.rpartition(".")
    above = f"{level}." if level else ""
    if name == "type":  # the old spelling of rope_type
        return f"{above}rope_type" in one and f"{above}rope_type" in other
    if name == "max_window_layers":  # transformers writes out the kind of each layer that follows from it
        return f"{above}layer_types" in one and f"{above}layer_types" in other
    if name == "max_position_embeddings":
        kinds = {value for config in (one, other) for key, value in config.items() if _rope_kind(key, above)}
        return not kinds & _BY_LENGTH
    return any(map(_NEUTRAL.fullmatch, key.split("."))) or name in _generation_keys()


def _rope_kind(key: str, above: str) -> bool:
    return bool(re.fullmatch(rf"{re.escape(above)}rope_\w+\.(.*\.)?(rope_)?type", key))


@cache
def _generation_keys() -> frozenset[str]:
    """Keys of a generation_config.json, which a config.json of earlier versions may have too."""
    from transformers import GenerationConfig

    return frozenset(GenerationConfig().to_dict())


def _flat(config: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", _listed(value)


def _listed(value: Any) -> Any:
    """Returns a value with its tuples as lists, and nothing in the place of an empty dictionary."""
    if isinstance(value, list | tuple):
        return [_listed(part) for part in value]
    return None if value == {} else value
