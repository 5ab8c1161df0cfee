"""One view of every kind of base checkpoint: a config in Hugging Face terms, tensor specs, tensors one at a time."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from merit_jax.models.io.gguf import GGUFFile
from merit_jax.models.io.hf_folder import Folder
from merit_jax.models.io.safetensors import TensorSpec


@runtime_checkable
class Checkpoint(Protocol):
    """A checkpoint that has been opened; only headers are in memory.

    Attributes:
        path: Folder or file.
        config_file: Source of the config, for error messages.
        config: The config, with the keys of a Hugging Face config.json.
        specs: Tensor name (as in Hugging Face) -> type and shape as stored.
    """

    path: Path
    config_file: str
    config: dict[str, Any]
    specs: dict[str, TensorSpec]

    def read(self, key: str) -> np.ndarray:
        """Reads one tensor."""


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a Hugging Face folder or a .gguf file.

    Raises:
        ValueError: There is no such checkpoint, or it is damaged or incomplete.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        return GGUFFile(path)
    if not path.is_dir():
        raise ValueError(f"{path}: expected a Hugging Face folder (config.json and safetensors) or a .gguf file")
    return Folder(path)
