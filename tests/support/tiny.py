"""Tiny random models: configs, batches, and Hugging Face folders written without PyTorch or by it."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from merit_jax.models import DecoderConfig, Model, Rope, build
from merit_jax.models.families.registry import FAMILIES
from merit_jax.models.io.weight_map import expand, leaf_shapes, tensor_shape

VOCAB = 61
BF16 = ml_dtypes.bfloat16
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
"""RoPE of Llama 3, for contexts of 32 tokens."""


YARN = {
    "rope_type": "yarn",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 8,
    "beta_fast": 4.0,
    "beta_slow": 0.5,
}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
MOE = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 28, "norm_topk_prob": True}
OF_FAMILY: dict[str, dict[str, Any]] = {
    "qwen3": {"hidden_size": 32},
    "qwen3_moe": MOE,
    "mistral": {"sliding_window": 6},
    "ministral": {"sliding_window": 6, "layer_types": LAYERS},
    "ministral3": {"rope_parameters": YARN | {"llama_4_scaling_beta": 0.3}, "rope_theta": None},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "smollm3": {"no_rope_layers": [1, 0, 1], "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
    "olmo2": {"eos_token_id": 1, "pad_token_id": 0},
    "olmo3": {
        "eos_token_id": 1,
        "pad_token_id": 0,
        "layer_types": LAYERS,
        "sliding_window": 6,
        "rope_theta": None,
        "rope_parameters": {
            "full_attention": YARN,
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
    },
    "gemma3_text": {
        "layer_types": LAYERS,
        "sliding_window": 6,
        "query_pre_attn_scalar": 5,
        "final_logit_softcapping": 3.0,
        "rope_theta": None,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "phi3": {
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "original_max_position_embeddings": 16,
        "rope_theta": None,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 5000.0,
            "partial_rotary_factor": 0.5,
            "short_factor": [1.0, 1.5],
            "long_factor": [2.0, 7.0],
        },
    },
    "granite": {
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.4,
        "logits_scaling": 2.5,
    },
}
"""Family -> the keys of its config.json besides those of Llama's, with values that matter in contexts of 40 tokens."""


class Rows(NamedTuple):
    """The fields of a batch that models read."""

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    images: Any = None


def config(family: str = "llama", **changes: Any) -> DecoderConfig:
    fields = {
        "family": family,
        "vocab_size": VOCAB,
        "hidden_size": 24,
        "layers": 3,
        "heads": 6,
        "kv_heads": 2,
        "head_dim": 4,
        "mlp_size": 40,
        "rope": Rope(5000.0),
        "qkv_bias": family == "qwen2",
    }
    return DecoderConfig(**{**fields, **changes})


@functools.cache
def model(family: str = "llama", **changes: Any) -> Model:
    """The model of `config(family, **changes)`, compiled."""
    return compiled(build(config(family, **changes)))


def compiled(model: Model) -> Model:
    """The same model with its functions compiled."""
    names = ("hidden", "unembed", "prefill", "decode", "input_grams")
    return dataclasses.replace(model, **{name: jax.jit(getattr(model, name)) for name in names})


def logits(model: Model, params: Any, batch: Rows) -> np.ndarray:
    return np.asarray(model.unembed(params, model.hidden(params, batch)))


def hf_config(family: str = "llama", **changes: Any) -> dict[str, Any]:
    """The config.json of `config(family)`; of families that `config` does not know, one with what sets them apart."""
    fields = {
        "model_type": family,
        "architectures": [f"{family.title()}ForCausalLM"],
        "vocab_size": VOCAB,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "intermediate_size": 40,
        "rope_theta": 5000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
    }
    return {**fields, **OF_FAMILY.get(family, {}), **changes}


def params(model: Any, seed: int = 0, scale: float = 0.2) -> dict[str, Any]:
    """Random params in which no leaf is constant, so that every one of them matters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0.1, scale, leaf.shape).astype(np.float32), model.abstract)


def rows(*lengths: int, width: int, seed: int = 0) -> Rows:
    """Right-padded rows, one example each."""
    rng = np.random.default_rng(seed)
    places = np.arange(width, dtype=np.int32)
    inside = places < np.array(lengths)[:, None]
    tokens = np.where(inside, rng.integers(1, VOCAB, inside.shape), 0).astype(np.int32)
    return Rows(tokens, np.where(inside, places, 0).astype(np.int32), inside.astype(np.int32))


def packed(*examples: np.ndarray, width: int) -> Rows:
    """Examples one after the other in one row."""
    row = Rows(*(np.zeros((1, width), np.int32) for _ in range(3)))
    start = 0
    for number, example in enumerate(examples, start=1):
        part = np.s_[0, start : start + len(example)]
        row.tokens[part], row.positions[part], row.segments[part] = example, np.arange(len(example)), number
        start += len(example)
    return row


def tensors(family: str, *, tied: bool = False, stored: bool = False, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Random tensors of a checkpoint of `hf_config(family)`."""
    cfg = config(family, tied=tied)
    shapes, rng = leaf_shapes(build(cfg).abstract), np.random.default_rng(1)
    found = {
        place.key: rng.normal(0.1, 0.2, tensor_shape(shapes[path], place)).astype(dtype)
        for path, place in expand(FAMILIES[family].rows(cfg), shapes)
    }
    return found | ({"lm_head.weight": found["model.embed_tokens.weight"]} if stored else {})


def folder(path: Path, family: str = "llama", *, shards: int = 1, weights: Any = None, **changes: Any) -> Path:
    """Writes a checkpoint folder; `changes` go into its config.json."""
    path.mkdir(parents=True)
    content = hf_config(family, **changes)
    (path / "config.json").write_text(json.dumps(content))
    weights = tensors(family, tied=bool(content["tie_word_embeddings"])) if weights is None else weights
    if shards == 1:
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
        return path
    names = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    where = {key: names[i % shards] for i, key in enumerate(sorted(weights))}
    for name in names:
        save_file({key: weights[key] for key in where if where[key] == name}, path / name, metadata={"format": "pt"})
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path
