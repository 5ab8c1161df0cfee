"""Flax Linen model families, and their checkpoints."""

from models.build import build
from models.export import export_hf
from models.hf import leaf_keys, load_pretrained, read_config
from models.interface import CACHE_ROW_AXIS, DecoderConfig, KVCache, Llama3Scaling, Model
from models.shipped import smollm2_path
from models.tokenizer import load_tokenizer

__all__ = [
    "CACHE_ROW_AXIS",
    "DecoderConfig",
    "KVCache",
    "Llama3Scaling",
    "Model",
    "build",
    "export_hf",
    "leaf_keys",
    "load_pretrained",
    "load_tokenizer",
    "read_config",
    "smollm2_path",
]
