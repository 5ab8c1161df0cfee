"""A Hugging Face folder: config, tensor specs, tensors one at a time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from merit_jax.models.io.errors import raise_if_of_machine
from merit_jax.models.io.regular_files import MAX_SETTINGS, check_regular
from merit_jax.models.io.safetensors import DTYPES, TensorSpec, read_specs, read_tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Folder:
    """A Hugging Face folder of safetensors, single or sharded, with tensors of the types `dtypes`."""

    def __init__(self, path: Path, dtypes: Mapping[str, np.dtype] = DTYPES):
        self.path = path
        self.config_file = str(path / "config.json")
        self.config = read_json(path / "config.json")
        self._files: dict[str, Path] = {}
        self.specs: dict[str, TensorSpec] = {}
        index = {} if (path / SINGLE).is_file() else _read_index(path)
        for file in [path / name for name in sorted(set(index.values()))] or [path / SINGLE]:
            for key, spec in read_specs(file, dtypes).items():
                if key in self.specs:
                    raise ValueError(f"{file}: tensor {key!r} is also in {self._files[key].name}")
                self.specs[key], self._files[key] = spec, file
        for key in sorted(index.keys() | self._files.keys()) if index else ():
            stored = self._files[key].name if key in self._files else None
            if index.get(key) != stored:
                raise ValueError(f"{path / INDEX}: tensor {key!r} is listed in {index.get(key)} but stored in {stored}")

    def read(self, key: str) -> np.ndarray:
        """Reads one tensor."""
        return read_tensor(self._files[key], key)


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: The file is not there, no regular file or too large, holds something else, or a name twice in an object.
    """
    check_regular(file, MAX_SETTINGS)
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (OSError, MemoryError, ValueError, RecursionError) as error:
        raise_if_of_machine(error, file)
        raise ValueError(f"{file}: expected a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected a JSON object, got {type(content).__name__}")
    return content


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice; delete all but one")
    return found


def _read_index(path: Path) -> dict[str, str]:
    """Reads tensor name -> file of a folder of several weight files, all of which must be there."""
    if not (path / INDEX).is_file():
        raise ValueError(f"{path}: neither {SINGLE} nor {INDEX} is there (only safetensors are read, never pickles)")
    found = read_json(path / INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise ValueError(f"{path / INDEX}: expected 'weight_map', from tensor names to files")
    there = {file.name for file in path.iterdir() if file.is_file()}
    for name in sorted(set(found.values())):
        if Path(name).name != name:
            raise ValueError(f"{path / INDEX}: shard {name!r} is not a file name")
        if name not in there:
            raise ValueError(f"{path / INDEX}: shard {name:.200} is missing from the folder; fetch it again")
    return found
