"""Exports params to a Hugging Face folder, streamed leaf by leaf, with the key set and the other files of the base."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from merit_jax.models.interface import Array
from merit_jax.models.io.casting import stored_as
from merit_jax.models.io.checkpoint import Checkpoint
from merit_jax.models.io.drafts import check_free
from merit_jax.models.io.folder_writer import MAX_SHARD_BYTES, copy_other_files, write_folder, write_json
from merit_jax.models.io.hf_folder import read_json
from merit_jax.models.io.safetensors import DTYPES, TensorSpec
from merit_jax.models.io.weight_map import Place, grouped, tensor_of
from merit_jax.models.pretrained.load import Pretrained, open_pretrained
from merit_jax.models.processing.generation_config import add_ends
from merit_jax.models.processing.tokenizer import load_tokenizer


def export_hf(
    out_dir: str | Path,
    read_leaf: Callable[[str], Array],
    base: str | Path | Pretrained,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    dtype: Any = None,
    extra: Mapping[str, str] | None = None,
    stop: Sequence[int] = (),
) -> None:
    """Writes a Hugging Face folder, holding one leaf at a time; `out_dir` appears only when it is complete.

    Args:
        out_dir: Folder to make; must not exist, or be empty.
        read_leaf: Leaf path ("layers/mlp/up/kernel") -> the leaf.
        base: The checkpoint that the params descend from (Hugging Face folder or .gguf file), or that checkpoint opened: its
            tensor names, types and non-weight files are kept.
        max_shard_bytes: A new file is begun before this size is passed.
        dtype: Type of the tensors; None for each tensor's type in the base (float32 for GGUF).
        extra: Text files to add, such as a model card: file name -> content.
        stop: Ids of tokens that end a response, in addition to those that the base's settings name.

    Raises:
        ValueError: `out_dir` is in use, a leaf has the wrong shape, is not finite or does not fit the type, or the base is
            damaged.
        OSError: A file cannot be read or written, or there is no room for the folder.
    """
    out = Path(out_dir)
    check_free(out)
    if dtype is not None and jnp.dtype(dtype) not in DTYPES.values():
        raise ValueError(f"dtype = {dtype!r}: expected float64, float32, float16 or bfloat16")
    opened = base if isinstance(base, Pretrained) else open_pretrained(base)
    groups = grouped(opened.plan.leaves)
    order = [key for group in groups for key in group] + list(opened.plan.kept)
    specs = [opened.checkpoint.specs[key] for key in order]
    specs = specs if dtype is None else [spec._replace(dtype=jnp.dtype(dtype)) for spec in specs]
    asked = f"the type in {opened.checkpoint.path}" if dtype is None else "the type asked for"
    tensors = _tensors(read_leaf, opened, groups, specs, f"{asked}; give dtype bfloat16 or float32")
    other_files = partial(_add_other_files, opened.checkpoint, dtype, stop)
    write_folder(out, specs, tensors, other_files, extra or {}, max_shard_bytes)


def _tensors(
    read_leaf: Callable[[str], Array],
    opened: Pretrained,
    groups: Sequence[Mapping[str, Sequence[tuple[str, Place]]]],
    specs: Sequence[TensorSpec],
    place_of_type: str,
) -> Iterator[np.ndarray]:
    """Yields the tensors to write, in the order of `specs`, group of leaves by group."""
    dtypes, shapes = {spec.key: spec.dtype for spec in specs}, opened.paths()
    for group in groups:
        paths = dict.fromkeys(path for parts in group.values() for path, _ in parts)
        leaves = {path: np.asarray(read_leaf(path)) for path in paths}
        for path, leaf in leaves.items():
            if leaf.shape != shapes[path].shape:
                asked = f"{opened.checkpoint.path} asks for {shapes[path].shape}"
                raise ValueError(f"leaf {path!r} has shape {leaf.shape}, but {asked}")
        for key, parts in group.items():
            yield stored_as(_whole([(leaves[path], place) for path, place in parts]), dtypes[key], key, place_of_type)
        del leaves
    for key in opened.plan.kept:
        yield stored_as(opened.checkpoint.read(key), dtypes[key], key, place_of_type)


def _whole(parts: Sequence[tuple[np.ndarray, Place]]) -> np.ndarray:
    """Puts a tensor together from the leaves that have its rows."""
    if len(parts) == 1:
        return tensor_of(*parts[0])
    by_row = sorted(parts, key=lambda part: part[1].rows or (0,))
    return np.concatenate([tensor_of(leaf, place) for leaf, place in by_row])


def _add_other_files(checkpoint: Checkpoint, dtype: Any, stop: Sequence[int], draft: Path) -> None:
    """Writes config, tokenizer, chat template, settings of generation and licences."""
    _add_files_of_base(checkpoint, dtype, draft)
    if stop:
        add_ends(draft, stop)


def _add_files_of_base(checkpoint: Checkpoint, dtype: Any, draft: Path) -> None:
    if checkpoint.path.is_dir():
        copy_other_files(checkpoint.path, draft)
        config = checkpoint.config
        if dtype is not None:
            config = config | {"dtype" if "dtype" in config else "torch_dtype": jnp.dtype(dtype).name}
        if config != read_json(draft / "config.json"):
            write_json(draft / "config.json", config)
        return
    write_json(draft / "config.json", {**checkpoint.config, "torch_dtype": jnp.dtype(dtype or "float32").name})
    load_tokenizer(checkpoint.path).save_pretrained(draft)
    settings = read_json(draft / "tokenizer_config.json")
    write_json(draft / "tokenizer_config.json", settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
