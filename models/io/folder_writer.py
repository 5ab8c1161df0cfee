"""Writes a Hugging Face folder tensor by tensor, with the other files of the folder that it descends from."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from merit_jax.models.io.disk import check_room, named
from merit_jax.models.io.drafts import draft_of
from merit_jax.models.io.folder_files import check_inside, known_files
from merit_jax.models.io.hf_folder import INDEX, SINGLE
from merit_jax.models.io.safetensors import TensorSpec, write

MAX_SHARD_BYTES = 5_000_000_000
"""Default for the size of a weight file before a new one is begun."""


def write_folder(
    out: Path,
    specs: Sequence[TensorSpec],
    tensors: Iterator[np.ndarray],
    add_other_files: Callable[[Path], None],
    extra: Mapping[str, str],
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a folder, holding one tensor at a time; it appears only when it is complete.

    Args:
        out: Folder to make; must not exist, or be empty.
        specs: The tensors, in order.
        tensors: Their values.
        add_other_files: Writes config, tokenizer and the like into the folder that it is called with.
        extra: Text files to add: file name -> content.
        max_shard_bytes: A new file is begun before this size is passed.

    Raises:
        ValueError: `out` is in use, or a tensor is not as announced.
        OSError: A file cannot be read or written, or there is no room for it; its path is in the error.
    """
    check_room(out, sum(spec.nbytes for spec in specs))
    with draft_of(out) as draft:
        add_other_files(draft)  # small, and may be refused: before the weights, which take long
        for name, content in extra.items():
            _write_text(draft / name, content)
        _write_weights(draft, specs, tensors, max_shard_bytes)
        for file in draft.rglob("*"):
            if file.is_file():
                with named(file), file.open("rb") as handle:
                    os.fsync(handle.fileno())


def copy_other_files(source: Path, target: Path) -> None:
    """Copies the files that `files_to_copy` returns.

    Raises:
        ValueError: As there.
        OSError: One cannot be read or written.
    """
    for file in files_to_copy(source):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with named(copy):
            shutil.copyfile(file, copy)


def files_to_copy(source: Path) -> list[Path]:
    """Returns the files of a folder that `known_files` lists: config, tokenizer, image processor, templates and licences.

    Raises:
        ValueError: One is a link to a file elsewhere, which may be private, or no regular file.
        OSError: One cannot be read.
    """
    files = list(known_files(source))
    for file in files:
        check_inside(source, file)
        file.open("rb").close()
    return files


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file into a draft."""
    _write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_text(file: Path, content: str) -> None:
    with named(file):
        file.write_text(content, encoding="utf-8")


def _write_weights(
    draft: Path, specs: Sequence[TensorSpec], tensors: Iterator[np.ndarray], max_shard_bytes: int
) -> None:
    shards = _shards(specs, max_shard_bytes)
    if len(shards) == 1:
        write(draft / SINGLE, specs, tensors)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write(draft / name, shard, tensors)
        weight_map |= {spec.key: name for spec in shard}
    total = sum(spec.nbytes for spec in specs)
    write_json(draft / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def _shards(specs: Sequence[TensorSpec], max_bytes: int) -> list[list[TensorSpec]]:
    """Splits a list of tensors into files of at most `max_bytes` each (more if one tensor alone is larger)."""
    shards: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if shards[-1] and size + spec.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.nbytes
    return shards
