"""Makes a Hugging Face config of GGUF metadata; a key that would change the computation is read or refused by name."""

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from merit_jax.models.rope_settings import Llama3Scaling
from merit_jax.models.io.safetensors import TensorSpec
from merit_jax.models.modules import rope

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
ROPE_FACTORS = "rope_freqs.weight"
_READ = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
}
_IDLE = {
    "attention.layer_norm_epsilon",
    "expert_used_count",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "tensor_data_layout",
}
"""Keys that say nothing about a Llama or Qwen2 without experts and YaRN."""


class _Metadata:
    """The keys of an architecture in GGUF metadata.

    Attributes:
        kind: The architecture.
        where: The file, for error messages.
    """

    def __init__(self, metadata: Mapping[str, Any], where: str):
        kind = metadata.get("general.architecture")
        if not isinstance(kind, str) or kind not in ARCHITECTURES:
            raise ValueError(f"{where}: architecture {kind!r:.80} is not supported; known: {', '.join(ARCHITECTURES)}")
        self.kind, self.where, self._all = kind, where, metadata
        for key, found in metadata.items():
            name = key.removeprefix(f"{kind}.")
            if name != key and name not in _READ | _IDLE and found not in (0, "", []):
                self.refuse(name, " is not supported")

    def value(self, key: str, *default: Any) -> Any:
        """Returns the value of a key; refuses an absent one without a default."""
        if f"{self.kind}.{key}" not in self._all and not default:
            raise ValueError(f"{self.where}: metadata key {self.kind}.{key} is missing")
        return self._all.get(f"{self.kind}.{key}", *default)

    def number(self, key: str, *default: Any) -> Any:
        """Returns a number."""
        found = self.value(key, *default)
        if isinstance(found, bool) or not isinstance(found, int | float):
            self.refuse(key, "; expected a number")
        return found

    def expect(self, key: str, expected: Any, reason: str = "") -> None:
        """Refuses a value that is there and another than the one expected."""
        if self.value(key, expected) != expected:
            self.refuse(key, f" is not supported; expected {expected!r}{reason}")

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Raises a ValueError about the value of a key."""
        found = self._all.get(f"{self.kind}.{key}")
        raise ValueError(f"{self.where}: {self.kind}.{key} = {found!r:.80}{reason}")


def read_config(metadata: Mapping[str, Any], specs: Mapping[str, TensorSpec], where: str) -> dict[str, Any]:
    """Makes a Hugging Face config of GGUF metadata.

    Args:
        metadata: GGUF key -> value.
        specs: The tensors, by their Hugging Face names.
        where: The file, for error messages.

    Raises:
        ValueError: The architecture is another one, a key is missing, or asks for what the models do not implement.
    """
    keys = _Metadata(metadata, where)
    heads, hidden = keys.number("attention.head_count"), keys.number("embedding_length")
    head_dim = keys.number("attention.key_length", hidden // max(heads, 1))
    for key in ("rope.dimension_count", "attention.value_length"):
        keys.expect(key, head_dim, ", the size of a head")
    keys.expect("attention.causal", True)
    embedding = specs.get("model.embed_tokens.weight")
    config = {
        "architectures": [ARCHITECTURES[keys.kind]],
        "model_type": keys.kind,
        "vocab_size": embedding.shape[0] if embedding and embedding.shape else keys.number("vocab_size"),
        "hidden_size": hidden,
        "num_hidden_layers": keys.number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.number("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": keys.number("feed_forward_length"),
        "max_position_embeddings": keys.number("context_length"),
        "hidden_act": "silu",
        "rms_norm_eps": shortest(keys.number("attention.layer_norm_rms_epsilon")),
        "rope_theta": shortest(keys.number("rope.freq_base", 10000.0)),
        "tie_word_embeddings": "lm_head.weight" not in specs,
        **_linear_scaling(keys),
    }
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    ids = {key: metadata.get(f"tokenizer.ggml.{name}_token_id") for key, name in names.items()}
    return config | {key: number for key, number in ids.items() if number is not None}


def _linear_scaling(keys: _Metadata) -> dict[str, Any]:
    """Reads the RoPE scaling as llama.cpp does: a factor without a type is linear, and so is the old key for it."""
    kind = keys.value("rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        keys.refuse("rope.scaling.type", " is not supported")
    keys.expect("rope.scaling.attn_factor", 1.0)
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 0.0))
    if kind == "none" or factor in (0, 1):
        return {}
    return {"rope_scaling": {"rope_type": "linear", "factor": shortest(factor)}}


def llama3_scaling(divisors: np.ndarray, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the settings of Llama 3 that give the stored divisors of the RoPE frequencies.

    Raises:
        ValueError: No factor gives them, or the frequencies are scaled otherwise too.
    """
    shape = (config["head_dim"] // 2,)
    if divisors.shape != shape:
        raise ValueError(f"{where}: {ROPE_FACTORS} has shape {divisors.shape}, expected {shape}")
    if "rope_scaling" in config:
        raise ValueError(f"{where}: both {ROPE_FACTORS} and a linear RoPE scaling are there; only one is supported")
    scaling = Llama3Scaling(shortest(float(divisors.max())), 1.0, 4.0, 8192)
    plain = rope.frequencies(config["rope_theta"], config["head_dim"])
    if not np.allclose(plain / rope.stretch(plain, scaling), divisors, rtol=1e-4):
        raise ValueError(f"{where}: {ROPE_FACTORS} is not the RoPE scaling of Llama 3, the only kind supported")
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_length,
    }


def shortest(value: float) -> float:
    """Returns the shortest decimal that is the same float32: 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))
