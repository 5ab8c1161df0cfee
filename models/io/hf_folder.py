"""One view of every kind of base checkpoint: a config in Hugging Face terms, tensor specs, tensors one at a time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from models.io.gguf import GGUFFile
from models.io.safetensors import DTYPES, TensorSpec, read_specs, read_tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@runtime_checkable
class Checkpoint(Protocol):
    """A checkpoint that has been opened; only headers are in memory.

    Attributes:
        path: Folder or file.
        config_file: Where the config came from, for error messages.
        config: The config, with the keys of a Hugging Face config.json.
        specs: Tensor name (as in Hugging Face) -> what is stored.
    """

    path: Path
    config_file: str
    config: Mapping[str, Any]
    specs: Mapping[str, TensorSpec]

    def read(self, key: str) -> np.ndarray:
        """One tensor."""


class Folder:
    """A Hugging Face folder of safetensors, single or sharded, with tensors of the types `dtypes`."""

    def __init__(self, path: Path, dtypes: Mapping[str, np.dtype] = DTYPES):
        self.path = path
        self.config_file = str(path / "config.json")
        self.config = read_json(path / "config.json")
        self._files: dict[str, Path] = {}
        self.specs: dict[str, TensorSpec] = {}
        for file in _weight_files(path):
            for key, spec in read_specs(file, dtypes).items():
                if key in self.specs:
                    raise ValueError(f"{file}: tensor {key!r} is also in {self._files[key].name}")
                self.specs[key], self._files[key] = spec, file
        _check_index(path, self._files)

    def read(self, key: str) -> np.ndarray:
        """One tensor."""
        return read_tensor(self._files[key], key)


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


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: The file is not there or holds something else, or an object in it has a name twice.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected a JSON object, got {type(content).__name__}")
    return content


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{next(name for name in found if names.count(name) > 1)!r} is there twice; delete all but one"
        )
    return found


def _weight_files(path: Path) -> list[Path]:
    """The safetensors of a folder."""
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    if not (path / INDEX).is_file():
        raise ValueError(f"{path}: neither {SINGLE} nor {INDEX} is there (only safetensors are read, never pickles)")
    files, there = [], {file.name for file in path.iterdir() if file.is_file()}
    for name in sorted(set(_weight_map(path).values())):
        if Path(name).name != name:
            raise ValueError(f"{path / INDEX}: shard {name!r} is not a file name")
        if name not in there:
            raise ValueError(f"{path / INDEX}: shard {name:.200} is missing from the folder; fetch it again")
        files.append(path / name)
    return files


def _weight_map(path: Path) -> dict[str, Any]:
    found = read_json(path / INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise ValueError(f"{path / INDEX}: expected 'weight_map', from tensor names to files")
    return found


def _check_index(path: Path, files: Mapping[str, Path]) -> None:
    """The index and the shards must name the same tensors."""
    if (path / SINGLE).is_file():
        return
    listed = _weight_map(path)
    for key in sorted(set(listed) | set(files)):
        stored = files[key].name if key in files else None
        if listed.get(key) != stored:
            raise ValueError(f"{path / INDEX}: tensor {key!r} is listed in {listed.get(key)} but stored in {stored}")
