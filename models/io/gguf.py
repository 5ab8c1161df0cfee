"""Opens GGUF files of the Llama and Qwen2 architectures as Hugging Face checkpoints."""

import re
from pathlib import Path
from typing import Any, no_type_check

import numpy as np

from models.interface import Llama3Scaling
from models.io.errors import raise_if_of_machine
from models.io.safetensors import TensorSpec
from models.modules import rope

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_ROPE_FACTORS = "rope_freqs.weight"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")
_DAMAGES = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""Exceptions of gguf's reader on damaged files."""


class GGUFFile:
    """A GGUF file; tensors are dequantised to float32 when read.

    Attributes:
        path: The file.
        config_file: The same, for error messages.
        metadata: GGUF key -> value.
        config: The config, with the keys of a Hugging Face config.json.
        specs: Tensor name (as in Hugging Face) -> shape, float32.
    """

    def __init__(self, path: Path):
        self.path, self.config_file = path, str(path)
        reader, self.metadata = open_reader(path)
        extra = {tensor.name: tensor for tensor in reader.tensors if tensor.name == _ROPE_FACTORS}
        named = [(hf_name(tensor.name, path), tensor) for tensor in reader.tensors if tensor.name not in extra]
        self._tensors = dict(named)
        if len(self._tensors) < len(named):
            raise ValueError(f"{path}: two tensors have one place in the model")
        self.specs = {
            key: TensorSpec(key, np.dtype(np.float32), tuple(int(n) for n in reversed(tensor.shape)))
            for key, tensor in self._tensors.items()
        }
        self.config = _config(self.metadata, self.specs, str(path))
        if extra:
            self.config["rope_scaling"] = _rope_scaling(extra[_ROPE_FACTORS].data, self.config, str(path))

    def read(self, key: str) -> np.ndarray:
        """Reads one tensor, in the layout of Hugging Face."""
        from gguf import dequantize

        tensor = self._tensors[key]
        try:
            array = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise ValueError(f"{self.path}: tensor {tensor.name!r} is stored as {error}, which is not read") from None
        if self.config["model_type"] != "llama":
            return array
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        names = [config_key for name, config_key in heads.items() if f".{name}." in key]
        return unpermute(array, self.config[names[0]]) if names else array


def unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Moves the rows of each head from interleaved pairs (GGUF) into half-rotation order (Hugging Face).

    Raises:
        ValueError: The rows are no pairs of so many heads.

    Examples:
        >>> unpermute(np.array([0, 1, 2, 3]), heads=1).tolist()
        [0, 2, 1, 3]
    """
    if heads < 1 or rows.shape[0] % (2 * heads):
        raise ValueError(f"{rows.shape[0]} rows of a projection are no pairs of {heads} heads; fetch the file again")
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def open_reader(path: Path) -> tuple[Any, dict[str, Any]]:
    """Opens a file with a `gguf.GGUFReader` that never reads past its end, and reads its metadata, GGUF key -> value.

    Raises:
        ImportError: The gguf package is not installed.
        ValueError: The file is missing, truncated or damaged.
    """
    try:
        import gguf
    except ImportError:
        raise ImportError("reading .gguf files needs the gguf package: pip install 'merit-jax[gguf]'") from None

    class Reader(gguf.GGUFReader):
        @no_type_check
        def _get(self, offset, dtype, count=1, override_order=None):
            """Reads items of the file; unlike the original, fails past its end, and makes no slow slices of a memmap."""
            kind = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
            return np.frombuffer(self.data, kind, int(count), int(offset))

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with np.errstate(over="raise"):
            reader = Reader(path)
        return reader, {key: field.contents() for key, field in reader.fields.items()}
    except (*_DAMAGES, OSError, MemoryError) as error:
        raise_if_of_machine(error, path)
        raise ValueError(f"{path}: not a readable GGUF file (truncated or damaged?): {error}") from None


def hf_name(name: str, path: Path) -> str:
    """Returns the Hugging Face name of a GGUF tensor.

    Raises:
        ValueError: The tensor is not part of a supported architecture.
    """
    if name in _TOP:
        return _TOP[name]
    parts = name.split(".", 2)
    if parts[0] == "blk" and len(parts) == 3 and _NUMBER.fullmatch(parts[1]) and parts[2] in _LAYER:
        return f"model.layers.{int(parts[1])}.{_LAYER[parts[2]]}"
    raise ValueError(f"{path}: tensor {name!r} has no place in the supported architectures: {', '.join(ARCHITECTURES)}")


def _config(metadata: dict[str, Any], specs: dict[str, TensorSpec], where: str) -> dict[str, Any]:
    """Makes a Hugging Face config of GGUF metadata.

    Raises:
        ValueError: The architecture is another one, or a key is missing.
    """
    kind = metadata.get("general.architecture")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ValueError(f"{where}: architecture {kind!r:.80} is not supported; known: {', '.join(ARCHITECTURES)}")

    def value(key: str, *default: Any) -> Any:
        if f"{kind}.{key}" not in metadata and not default:
            raise ValueError(f"{where}: metadata key {kind}.{key} is missing")
        return metadata.get(f"{kind}.{key}", *default)

    def number(key: str, *default: Any) -> Any:
        found = value(key, *default)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise ValueError(f"{where}: {kind}.{key} = {found!r:.80}; expected a number")
        return found

    for key in ("expert_count", "attention.sliding_window"):
        if value(key, 0):
            raise ValueError(f"{where}: {kind}.{key} = {value(key)} is not supported")
    if value("rope.scaling.type", "none") != "none":
        raise ValueError(f"{where}: {kind}.rope.scaling.type = {value('rope.scaling.type')!r} is not supported")
    heads, hidden = number("attention.head_count"), number("embedding_length")
    embedding = specs.get("model.embed_tokens.weight")
    config = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": embedding.shape[0] if embedding and embedding.shape else number("vocab_size"),
        "hidden_size": hidden,
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv", heads),
        "head_dim": number("attention.key_length", number("rope.dimension_count", hidden // max(heads, 1))),
        "intermediate_size": number("feed_forward_length"),
        "max_position_embeddings": number("context_length"),
        "hidden_act": "silu",
        "rms_norm_eps": _shortest(number("attention.layer_norm_rms_epsilon")),
        "rope_theta": _shortest(number("rope.freq_base", 10000.0)),
        "tie_word_embeddings": "lm_head.weight" not in specs,
    }
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    ids = {key: metadata.get(f"tokenizer.ggml.{name}_token_id") for key, name in names.items()}
    return config | {key: number for key, number in ids.items() if number is not None}


def _rope_scaling(divisors: np.ndarray, config: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the settings of Llama 3 that give the stored divisors of the RoPE frequencies.

    Raises:
        ValueError: No factor gives them.
    """
    shape = (config["head_dim"] // 2,)
    if divisors.shape != shape:
        raise ValueError(f"{where}: {_ROPE_FACTORS} has shape {divisors.shape}, expected {shape}")
    scaling = Llama3Scaling(_shortest(float(divisors.max())), 1.0, 4.0, 8192)
    plain = rope.frequencies(config["rope_theta"], config["head_dim"])
    if not np.allclose(plain / rope.stretch(plain, scaling), divisors, rtol=1e-4):
        raise ValueError(f"{where}: {_ROPE_FACTORS} is not the RoPE scaling of Llama 3, the only kind supported")
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_length,
    }


def _shortest(value: float) -> float:
    """Returns the shortest decimal that is the same float32: 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))
