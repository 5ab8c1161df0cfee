"""Flax Linen model families, and their checkpoints.

The names below are imported when they are first asked for, so that what only reads the tensors of a folder waits neither for
Flax nor for transformers.
"""

import importlib
from typing import Any

_HOMES = {
    "CACHE_ROW_AXIS": "interface",
    "DecoderConfig": "interface",
    "KVCache": "interface",
    "Llama3Scaling": "interface",
    "Model": "interface",
    "Pretrained": "hf",
    "StoredTensors": "stored",
    "VisionLanguageConfig": "interface",
    "build": "functional",
    "compose": "composite",
    "export_hf": "export",
    "leaf_keys": "hf",
    "load_pretrained": "hf",
    "load_tokenizer": "tokenizer",
    "open_pretrained": "hf",
    "read_config": "hf",
    "smollm2_path": "shipped",
}
"""Public name -> the module that defines it. No module has the name of one of these."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """The public name, from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
