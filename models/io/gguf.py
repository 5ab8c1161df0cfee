"""Opens GGUF files of the Llama and Qwen2 architectures as Hugging Face checkpoints."""

import re
from pathlib import Path

import numpy as np

from merit_jax.models.io.gguf_config import ARCHITECTURES, ROPE_FACTORS, llama3_scaling, read_config
from merit_jax.models.io.gguf_reader import open_reader
from merit_jax.models.io.safetensors import TensorSpec

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
_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")


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
        extra = {tensor.name: tensor for tensor in reader.tensors if tensor.name == ROPE_FACTORS}
        named = [(hf_name(tensor.name, path), tensor) for tensor in reader.tensors if tensor.name not in extra]
        self._tensors = dict(named)
        if len(self._tensors) < len(named):
            raise ValueError(f"{path}: two tensors have one place in the model")
        self.specs = {
            key: TensorSpec(key, np.dtype(np.float32), tuple(int(n) for n in reversed(tensor.shape)))
            for key, tensor in self._tensors.items()
        }
        self.config = read_config(self.metadata, self.specs, str(path))
        if extra:
            self.config["rope_scaling"] = llama3_scaling(extra[ROPE_FACTORS].data, self.config, str(path))

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
