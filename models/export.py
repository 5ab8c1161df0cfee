"""Params out to a Hugging Face folder, streamed leaf by leaf, with the key set and the other files of the base."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from models.build import build
from models.checkpoint import INDEX, SINGLE, Checkpoint, open_checkpoint, read_json
from models.families import parse_config
from models.hf import plan_of
from models.interface import Array
from models.keys import Layout, leaf_shapes, tensor_of
from models.safetensors_io import DTYPES, TensorSpec, write
from models.tokenizer import load_tokenizer

_COPIED = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")


def export_hf(
    out_dir: str | Path,
    read_leaf: Callable[[str], Array],
    base: str | Path | Checkpoint,
    *,
    max_shard_bytes: int = 5_000_000_000,
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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder; remove it or choose another")
    if dtype is not None and jnp.dtype(dtype) not in DTYPES.values():
        raise ValueError(f"dtype = {dtype!r}: expected float64, float32, float16 or bfloat16")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_weights(draft, read_leaf, checkpoint, max_shard_bytes, dtype)
        _write_other_files(draft, checkpoint, dtype)
        for name, content in (extra or {}).items():
            (draft / name).write_text(content, encoding="utf-8")
        _sync(draft)
        draft.chmod(0o777 & ~_umask())
        os.replace(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _sync(folder: Path) -> None:
    """Makes sure that every file of a folder is on disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def _umask() -> int:
    """The process's umask, which mkdtemp ignores."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_weights(
    draft: Path, read_leaf: Callable[[str], Array], checkpoint: Checkpoint, max_shard_bytes: int, dtype: Any
) -> None:
    model = build(parse_config(checkpoint.config, checkpoint.config_file))
    plan = plan_of(model, checkpoint)
    shapes = leaf_shapes(model.abstract)
    order = [place.key for leaf in plan.leaves for place in plan.leaves[leaf]] + list(plan.kept)
    specs = [_target(checkpoint.specs[key], dtype) for key in order]
    shards = _shards(specs, max_shard_bytes)
    names = (
        [SINGLE]
        if len(shards) == 1
        else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    )
    tensors = _tensors(read_leaf, checkpoint, plan, shapes, dtype)
    for name, shard in zip(names, shards, strict=True):
        write(draft / name, shard, tensors)
    if len(shards) > 1:
        weight_map = {spec.key: name for name, shard in zip(names, shards, strict=True) for spec in shard}
        total = sum(spec.nbytes for spec in specs)
        _write_json(draft / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def _target(spec: TensorSpec, dtype: Any) -> TensorSpec:
    """What will be written for a tensor of the base."""
    return spec if dtype is None else spec._replace(dtype=jnp.dtype(dtype))


def _shards(specs: Sequence[TensorSpec], max_bytes: int) -> list[list[TensorSpec]]:
    """Cuts a list of tensors into files of at most `max_bytes` each (more if one tensor alone is larger)."""
    shards: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if shards[-1] and size + spec.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.nbytes
    return shards


def _tensors(
    read_leaf: Callable[[str], Array],
    checkpoint: Checkpoint,
    plan: Layout,
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


def _write_other_files(draft: Path, checkpoint: Checkpoint, dtype: Any) -> None:
    """Config, tokenizer, chat template, licences."""
    if checkpoint.path.is_dir():
        _copy_other_files(checkpoint.path, draft)
        if dtype is not None:
            config = read_json(draft / "config.json")
            key = "dtype" if "dtype" in config else "torch_dtype"
            _write_json(draft / "config.json", config | {key: jnp.dtype(dtype).name})
        return
    _write_json(draft / "config.json", {**checkpoint.config, "torch_dtype": jnp.dtype(dtype or "float32").name})
    load_tokenizer(checkpoint.path).save_pretrained(draft)
    settings = read_json(draft / "tokenizer_config.json")
    _write_json(draft / "tokenizer_config.json", settings | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _copy_other_files(source: Path, target: Path) -> None:
    """Copies files that are neither weights, code, nor the base's README."""
    for file in sorted(source.iterdir()):
        kept = file.suffix in _COPIED or file.name.upper().startswith(_LICENCES)
        if file.is_file() and kept and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
    if (source / "additional_chat_templates").is_dir():
        shutil.copytree(source / "additional_chat_templates", target / "additional_chat_templates")


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
