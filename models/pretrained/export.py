"""Params out to a Hugging Face folder, streamed leaf by leaf, with the key set and the other files of the base."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from models.build_model import build
from models.families.registry import parse_config
from models.interface import Array
from models.io.folder_writer import MAX_SHARD_BYTES, check_free, copy_other_files, write_folder, write_json
from models.io.hf_folder import Checkpoint, open_checkpoint, read_json
from models.io.safetensors import DTYPES, TensorSpec
from models.io.weight_map import WeightMap, leaf_shapes, tensor_of
from models.pretrained.load import plan_of
from models.processing.tokenizer import load_tokenizer


def export_hf(
    out_dir: str | Path,
    read_leaf: Callable[[str], Array],
    base: str | Path | Checkpoint,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    dtype: Any = None,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Writes a Hugging Face folder, holding one leaf at a time; `out_dir` appears only when it is complete.

    Args:
        out_dir: Folder to make; must not exist, or be empty.
        read_leaf: Leaf path ("layers/mlp/up/kernel") -> the leaf.
        base: The checkpoint that the params descend from (Hugging Face folder or .gguf file), or the `Blueprint` that
            they are the first weights of: its tensor names, types and non-weight files are kept.
        max_shard_bytes: A new file is begun before this size is passed.
        dtype: Type of the tensors; None for each tensor's type in the base (float32 for GGUF).
        extra: Text files to add, such as a model card: file name -> content.

    Raises:
        ValueError: `out_dir` is in use, a leaf has the wrong shape, or the base is damaged.
    """
    out, checkpoint = Path(out_dir), base if isinstance(base, Checkpoint) else open_checkpoint(base)
    check_free(out)
    if dtype is not None and jnp.dtype(dtype) not in DTYPES.values():
        raise ValueError(f"dtype = {dtype!r}: expected float64, float32, float16 or bfloat16")
    model = build(parse_config(checkpoint.config, checkpoint.config_file))
    plan = plan_of(model, checkpoint)
    order = [place.key for leaf in plan.leaves for place in plan.leaves[leaf]] + list(plan.kept)
    specs = [_target(checkpoint.specs[key], dtype) for key in order]
    tensors = _tensors(read_leaf, checkpoint, plan, leaf_shapes(model.abstract), dtype)
    write_folder(out, specs, tensors, partial(_add_other_files, checkpoint, dtype), extra or {}, max_shard_bytes)


def _target(spec: TensorSpec, dtype: Any) -> TensorSpec:
    """What will be written for a tensor of the base."""
    return spec if dtype is None else spec._replace(dtype=jnp.dtype(dtype))


def _tensors(
    read_leaf: Callable[[str], Array],
    checkpoint: Checkpoint,
    plan: WeightMap,
    shapes: dict[str, tuple[int, ...]],
    dtype: Any,
) -> Iterator[np.ndarray]:
    """Every tensor to write, leaf by leaf."""
    for path, places in plan.leaves.items():
        leaf = np.asarray(read_leaf(path))
        if leaf.shape != shapes[path]:
            raise ValueError(f"leaf {path!r} has shape {leaf.shape}, but {checkpoint.path} asks for {shapes[path]}")
        for place in places:
            yield tensor_of(leaf, place).astype(_target(checkpoint.specs[place.key], dtype).dtype)
        del leaf
    for key in plan.kept:
        yield checkpoint.read(key).astype(_target(checkpoint.specs[key], dtype).dtype)


def _add_other_files(checkpoint: Checkpoint, dtype: Any, draft: Path) -> None:
    """Config, tokenizer, chat template, licences."""
    if checkpoint.path.is_dir():
        copy_other_files(checkpoint.path, draft)
        if dtype is not None:
            config = read_json(draft / "config.json")
            key = "dtype" if "dtype" in config else "torch_dtype"
            write_json(draft / "config.json", config | {key: jnp.dtype(dtype).name})
        return
    write_json(draft / "config.json", {**checkpoint.config, "torch_dtype": jnp.dtype(dtype or "float32").name})
    load_tokenizer(checkpoint.path).save_pretrained(draft)
    settings = read_json(draft / "tokenizer_config.json")
    write_json(draft / "tokenizer_config.json", settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
