"""The numbers of attention heads that `transformers` takes for a decoder whose width and size of a head stay as they are."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from merit_jax.models.build_model import Config, text_of
from merit_jax.models.interface import DecoderConfig
from merit_jax.models.rope_settings import LongRopeScaling


def _divides(text: DecoderConfig, heads: int) -> bool:
    return text.hidden_size % heads == 0


def _keeps_long_rope(text: DecoderConfig, heads: int) -> bool:
    return not isinstance(text.rope.scaling, LongRopeScaling) or text.hidden_size // heads == text.head_dim


class HeadRule(NamedTuple):
    """The numbers of heads that a family may have.

    Attributes:
        fixed: Reason why the number cannot change; empty if it can.
        possible: (decoder, number) -> whether its layers may have that number of query heads.
        condition: The same in words, after "a number of heads that"; empty if all may be.
        alias: `model_type` of the same decoder without that condition and without biases, if there is one.
    """

    fixed: str = ""
    possible: Callable[[DecoderConfig, int], bool] = lambda text, heads: True
    condition: str = ""
    alias: str = ""


_ANY = HeadRule()
_WHOLE_WIDTH = HeadRule("the norms of its queries and keys are over all heads of a layer, so that each depends on all")
_DIVIDES = HeadRule(possible=_divides, condition="divides hidden_size")
HEAD_RULES: Mapping[str, HeadRule] = {
    "llama": _DIVIDES._replace(alias="mistral"),
    "qwen2": _ANY,
    "qwen3": _ANY,
    "qwen3_moe": _ANY,
    "mistral": _ANY,
    "ministral": _ANY,
    "ministral3": _ANY,
    "mixtral": _ANY,
    "smollm3": _ANY,
    "olmo2": _WHOLE_WIDTH,
    "olmo3": _WHOLE_WIDTH,
    "gemma3_text": _DIVIDES,
    "phi3": HeadRule(
        possible=_keeps_long_rope,
        condition="leaves hidden_size / num_attention_heads as it was, for LongRoPE",
    ),
    "granite": _ANY,
    "qwen2_5_vl": HeadRule("transformers takes hidden_size / num_attention_heads for the size of its heads"),
}
"""Text family, or family with images whose decoder has an attention of its own -> its rule."""
VISION = "transformers takes the width of a tower / its number of heads for the size of its heads"
"""Reason why the number of a tower's heads cannot change."""


def head_rule(config: Config) -> HeadRule:
    """Returns the rule of a model's decoder; an alias only if it has no biases."""
    text = text_of(config)
    rule = HEAD_RULES.get(config.family, HEAD_RULES[text.family])
    return rule._replace(alias="") if text.qkv_bias or text.output_bias or text.mlp_bias else rule
