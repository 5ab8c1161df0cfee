"""A tiny world: a random Llama checkpoint with a byte-level tokenizer, and datasets of a few short rows."""

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from merit_jax.configs import common
from merit_jax.core import tree
from merit_jax.core.sharding import make_mesh
from merit_jax.core.types import Batch
from merit_jax.launch.wiring import open_run
from merit_jax.models import build, open_pretrained
from merit_jax.models.families.registry import FAMILIES, parse_config
from merit_jax.models.io.weight_map import expand, leaf_shapes, tensor_shape
from merit_jax.pipeline.run import Run, Shared
from tests.support.tiny_tokenizer import tiny_tokenizer

TASKS = {
    "copy": lambda word: (f"say {word}", word),
    "upper": lambda word: (f"shout {word}", word.upper()),
    "first": lambda word: (f"first letter of {word}", word[0]),
    "length": lambda word: (f"length of {word}", str(len(word))),
    "vowel": lambda word: (f"does {word} begin with a vowel?", "yes" if word[0] in "aeiou" else "no"),
    "reverse": lambda word: (f"reverse {word}", word[::-1]),
    "last": lambda word: (f"last letter of {word}", word[-1]),
    "double": lambda word: (f"say {word} twice", f"{word} {word}"),
}


def checkpoint(path: Path, seed: int = 0, layers: int = 2) -> Path:
    """Writes a Hugging Face folder."""
    from safetensors.numpy import save_file

    path.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(path)
    raw = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    (path / "config.json").write_text(json.dumps(raw))
    config = parse_config(raw, "config.json")
    shapes = leaf_shapes(build(config).abstract)
    rng = np.random.default_rng(seed)
    tensors = {}
    for leaf, place in expand(FAMILIES["llama"].rows(config), shapes):
        shape = tensor_shape(shapes[leaf], place)
        noise = rng.normal(0, 0.08, shape).astype(np.float32)
        tensors[place.key] = noise + np.float32("norm" in place.key)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def mixture(path: Path, tasks: tuple[str, ...] = tuple(TASKS)[:6], rows: int = 12, held_out: int = 6) -> str:
    """Writes datasets of different sizes and returns their glob."""
    path.mkdir(parents=True, exist_ok=True)
    for index, (name, task) in enumerate((name, TASKS[name]) for name in tasks):
        rng = random.Random(name)
        words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(rows + index + held_out)]
        records = [dict(zip(("inputs", "targets"), task(word), strict=True)) for word in words]
        if name == "vowel":
            records = [{**record, "options": ["no", "yes"]} for record in records]
        write_rows(path / f"{name}.train.jsonl", records[held_out:])
        write_rows(path / f"{name}.test.jsonl", records[:held_out])
    return str(path / "*.train.jsonl")


def write_rows(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def config(root: Path, method: str = "merit2d", **changes: Any) -> ConfigDict:
    """A config for the checkpoint and mixture under `root`, which are made if need be; `changes` as {"train.epochs": 2}."""
    if not (root / "theta0").exists():
        checkpoint(root / "theta0")
    if not (root / "data").exists():
        mixture(root / "data")
    c = common.get_config().unlock()
    c.model.path = str(root / "theta0")
    c.mixture.path = str((root / "data").resolve() / "*.train.jsonl")
    c.mixture.max_length = 96
    c.gradients.update({"examples": 8, "buckets": (96,), "batch_size": 8})
    c.train.update({"row_length": 96, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 2, "log_every": 1})
    c.evaluate.update({"buckets": (96,), "max_new_tokens": 8})
    c.update_from_flattened_dict(changes)
    return common.with_method(c.lock(), method)


def run(root: Path, workdir: str, method: str = "merit2d", *, overwrite: bool = False, **changes: Any) -> Run:
    """A run in `root/workdir`, on one device."""
    opened = open_run.open_run(config(root, method, **changes), root / workdir, overwrite=overwrite)
    return on_one_device(opened)


def on_one_device(run: Run) -> Run:
    """The same run, not yet begun, on one device."""
    model = build(run.model.config, placement=None)
    alone = Shared(model, run.theta0, run.tokenizer, run.reader).with_value("mesh", one_device_mesh())
    return dataclasses.replace(run, shared=alone)


def one_device_mesh(**_: Any) -> Mesh:
    """A mesh of one device, whatever `sharding.make_mesh` is asked for: programs for it compile in less time than for eight."""
    return make_mesh(devices=jax.devices()[:1])


def copied(finished: Run, root: Path, method: str = "merit2d", *, overwrite: bool = False, **changes: Any) -> Run:
    """A run like a finished one, in a copy of its workdir under another root, on the same theta0 and data."""
    source = Path(finished.workdir.root)
    if not (root / source.name).exists():
        shutil.copytree(source, root / source.name)
    beside(finished, root)
    return run(root, source.name, method, overwrite=overwrite, **changes)


def beside(finished: Run, root: Path, *, data: bool = True) -> Path:
    """A root with the theta0 of a finished run and, unless told otherwise, its data."""
    for name in ("theta0", "data")[: 1 + data]:
        if not (root / name).exists():
            (root / name).symlink_to(Path(finished.workdir.root).parent / name)
    return root


def row(ids: list[int]) -> Batch:
    """One example as a batch."""
    tokens = np.array([ids], np.int32)
    ones = np.ones_like(tokens)
    return Batch(tokens, tokens, ones.astype(np.float32), ones.cumsum(1, dtype=np.int32) - 1, ones)


def host(leaves: Any) -> dict[str, np.ndarray]:
    """All leaves of a reader or tree as numpy, flat."""
    if hasattr(leaves, "paths"):
        return {path: leaves.read(path) for path in leaves.paths()}
    return {path: np.asarray(jax.device_get(leaf)) for path, leaf in tree.flatten(leaves).items()}


def exported(folder: Path) -> dict[str, np.ndarray]:
    """All leaves of an exported Hugging Face folder."""
    return host(open_pretrained(Path(folder)))
