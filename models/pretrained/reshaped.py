"""A checkpoint whose decoder has other numbers of attention heads: its config.json, and its tensors' shapes, without values."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np

from merit_jax.models.build_model import build, override, text_of
from merit_jax.models.families.config_parsing import Section, completed
from merit_jax.models.families.registry import FAMILIES, parse_config
from merit_jax.models.interface import SWITCHES, DecoderConfig, VisionLanguageConfig
from merit_jax.models.io.checkpoint import Checkpoint
from merit_jax.models.io.safetensors import TensorSpec
from merit_jax.models.io.tensor_names import canonical_names
from merit_jax.models.io.weight_map import expand, leaf_shapes, tensor_shape
from merit_jax.models.pretrained.load import Pretrained, plan_of

_STATED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
)
"""Keys whose defaults depend on the `model_type`."""


_BIASES = ("attention_bias", "mlp_bias")


class ReshapedCheckpoint:
    """A `Checkpoint` in other shapes, for `export_hf` to make a folder like it.

    Attributes:
        path: Folder or file that it descends from.
        config_file: Source of that one's config.
        config: Content of the new config.json.
        specs: The tensors in their new shapes.
    """

    def __init__(self, of: Pretrained, config: dict[str, Any], specs: Mapping[str, TensorSpec]):
        self.path, self.config_file = of.checkpoint.path, of.checkpoint.config_file
        self.config, self.specs = config, dict(specs)
        self._kept, self._of = of.plan.kept, of.checkpoint

    def read(self, key: str) -> np.ndarray:
        """Reads a tensor that belongs to no leaf.

        Raises:
            ValueError: It belongs to one.
        """
        if key not in self._kept:
            raise ValueError(f"{self.path}: tensor {key!r} has another shape now; read its leaf through Removal.reader")
        return self._of.read(key)


def reshaped(opened: Pretrained, heads: int, groups: int, alias: str = "") -> Pretrained:
    """Returns a checkpoint with other numbers of attention heads in its decoder; the size of a head and all else stay.

    Args:
        opened: The checkpoint.
        heads: Query heads of a layer.
        groups: Key and value heads of a layer.
        alias: New `model_type` of the decoder; empty: its own.
    """
    config, checkpoint = opened.model.config, opened.checkpoint
    text = text_of(config)
    smaller = dataclasses.replace(text, heads=heads, kv_heads=groups, family=alias or text.family)
    whole = dataclasses.replace(config, text=smaller) if isinstance(config, VisionLanguageConfig) else smaller
    raw = _content(checkpoint, smaller, alias, nested=whole is not smaller)
    found = override(parse_config(raw, checkpoint.config_file), {name: getattr(text, name) for name in SWITCHES})
    assert found == whole, f"the new config.json describes {found}, not {whole}"
    model = build(whole)
    shapes, family = leaf_shapes(model.abstract), FAMILIES[whole.family]
    names, specs = canonical_names(checkpoint.config.get("model_type"), checkpoint.specs), dict(checkpoint.specs)
    for path, place in expand(family.rows(whole), shapes, names):
        key = names[place.key]
        specs[key] = specs[key]._replace(shape=tensor_shape(shapes[path], place))
    changed = ReshapedCheckpoint(opened, raw, specs)
    return Pretrained(changed, model, plan_of(model, changed))


def _content(checkpoint: Checkpoint, text: DecoderConfig, alias: str, nested: bool) -> dict[str, Any]:
    """Returns the content of the new config.json, with the sizes of the decoder `text`."""
    raw = checkpoint.config
    part = dict(raw["text_config"] if nested else raw)
    if alias:
        full = completed(Section(raw, checkpoint.config_file)).raw
        part = _renamed(part, full["text_config"] if nested else full, alias)
    part |= {"num_attention_heads": text.heads, "num_key_value_heads": text.kv_heads, "head_dim": text.head_dim}
    return {**raw, "text_config": part} if nested else part


def _renamed(part: Mapping[str, Any], full: Mapping[str, Any], alias: str) -> dict[str, Any]:
    """Returns a decoder's config under another `model_type`, with what this one takes by default written out.

    `transformers` doubts the tokenizer of a folder of type "mistral" that names no version of itself, or one before 5.0.
    """
    found = {key: value for key, value in part.items() if key not in _BIASES}
    found |= {key: full[key] for key in _STATED}
    if not found.keys() & {"rope_theta", "rope_parameters"}:
        found["rope_theta"] = full["rope_parameters"]["rope_theta"]
    if "architectures" in found:
        found["architectures"] = [f"{alias.title()}ForCausalLM"]
    version = importlib.metadata.version("transformers")
    return {**found, "model_type": alias, "sliding_window": None, "transformers_version": version}
