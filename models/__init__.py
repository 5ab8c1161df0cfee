"""Flax Linen model families, and their checkpoints.

The names below are imported at their first use, so that code that only reads the tensors of a folder waits neither for Flax
nor for transformers.
"""

import importlib
from typing import Any

_HOMES = {
    "CACHE_ROW_AXIS": "interface",
    "DecoderConfig": "interface",
    "KVCache": "interface",
    "Llama3Scaling": "rope_settings",
    "Model": "interface",
    "Pretrained": "pretrained.load",
    "StoredTensors": "io.raw_tensors",
    "VisionLanguageConfig": "interface",
    "Rope": "rope_settings",
    "build": "build_model",
    "compose": "pretrained.compose",
    "export_hf": "pretrained.export",
    "leaf_keys": "pretrained.load",
    "load_pretrained": "pretrained.load",
    "load_tokenizer": "processing.tokenizer",
    "open_pretrained": "pretrained.load",
    "read_config": "pretrained.load",
    "remove_heads": "pretrained.head_removal",
    "smollm2_path": "pretrained.shipped",
}
"""Public name -> the module that defines it. No module has one of these names."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
