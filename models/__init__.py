"""Flax Linen model families, and their checkpoints."""

from models.build import build
from models.compose import compose
from models.export import export_hf
from models.hf import Pretrained, leaf_keys, load_pretrained, open_pretrained, read_config
from models.interface import CACHE_ROW_AXIS, DecoderConfig, KVCache, Llama3Scaling, Model, VisionLanguageConfig
from models.shipped import smollm2_path
from models.tokenizer import load_tokenizer

__all__ = [
    "CACHE_ROW_AXIS",
    "DecoderConfig",
    "KVCache",
    "Llama3Scaling",
    "Model",
    "Pretrained",
    "VisionLanguageConfig",
    "build",
    "compose",
    "export_hf",
    "leaf_keys",
    "load_pretrained",
    "load_tokenizer",
    "open_pretrained",
    "read_config",
    "smollm2_path",
]
