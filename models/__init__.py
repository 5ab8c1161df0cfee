"""Flax Linen model families, and their checkpoints."""

from models.build import build
from models.hf import load_pretrained, read_config
from models.interface import CACHE_ROW_AXIS, DecoderConfig, KVCache, Llama3Scaling, Model

__all__ = [
    "CACHE_ROW_AXIS",
    "DecoderConfig",
    "KVCache",
    "Llama3Scaling",
    "Model",
    "build",
    "load_pretrained",
    "read_config",
]
