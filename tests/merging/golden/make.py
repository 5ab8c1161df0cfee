"""Makes the golden files: models small enough to be kept here, and what mergekit 0.1.5 merges them to.

Four fine-tuned Llamas, and three random Qwen2 models, whose layers have biases.

    python -m venv mergekit && mergekit/bin/pip install mergekit==0.1.5
    python -m tests.merging.golden.make mergekit/bin/mergekit-yaml

Each case is merged by `merit merge` first; mergekit is given the configuration that it writes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from merit_jax.core.loss import next_token_loss
from merit_jax.launch.wiring.merge_folders import merge_folders
from merit_jax.models import export_hf, load_pretrained
from merit_jax.models.pretrained.config_only import ConfigOnlyCheckpoint
from tests.merging.golden.cases import BIASED, CASES, FOLDER, MODELS
from tests.support import world

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 48,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
BIASED_CONFIG = {
    **CONFIG,
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "intermediate_size": 10,
    "use_sliding_window": False,
}
STEPS, ROW = 30, 32
EXPECTED = FOLDER / "expected"


def make_random(path: Path, config: dict = CONFIG, seed: int = 0) -> None:
    """A random model."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    rng, blueprint = np.random.default_rng(seed), ConfigOnlyCheckpoint(path)
    tensors = {key: rng.normal(0, 0.15, spec.shape).astype(np.float32) for key, spec in blueprint.specs.items()}
    tensors = {key: tensor + np.float32("norm" in key) for key, tensor in tensors.items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def fine_tune(base: Path, out: Path, task: int) -> None:
    """Trains on sequences of random tokens, each repeated `task + 2` times."""
    model, params = load_pretrained(base)
    loss_fn, optimizer = next_token_loss(model), optax.adam(3e-3)
    rng = np.random.default_rng(task)

    @jax.jit
    def step(params, state, batch):
        def loss(params):
            nll, tokens = loss_fn(params, batch)
            return nll.sum() / tokens.sum()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(STEPS):
        ids = np.repeat(rng.integers(0, CONFIG["vocab_size"], ROW), task + 2)[: ROW + 1].tolist()
        row = world.row(ids)
        batch = row._replace(tokens=row.tokens[:, :-1], targets=row.tokens[:, 1:], weights=row.weights[:, 1:])
        batch = batch._replace(positions=row.positions[:, :-1], segments=row.segments[:, :-1])
        params, state = step(params, state, jax.tree.map(jnp.asarray, batch))
    export_hf(out, flatten_dict(params, sep="/").__getitem__, base)


def record(mergekit: Path) -> None:
    """Merges every case twice and keeps what mergekit made of it."""
    shutil.rmtree(EXPECTED, ignore_errors=True)
    EXPECTED.mkdir()
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(case.folder)
            merge_folders("base", case.models, case.weights, case.method, case.options, f"{scratch}/ours")
            written = shutil.copyfile(f"{scratch}/ours/mergekit.yaml", EXPECTED / f"{name}.yaml")
            options = ("--no-copy-tokenizer", "--no-write-model-card")  # there is none, and it would ask the network
            subprocess.run([mergekit, written, f"{scratch}/theirs", *options], check=True)
            shutil.copyfile(f"{scratch}/theirs/model.safetensors", EXPECTED / f"{name}.safetensors")


def main(mergekit: str) -> None:
    """Replaces every golden file."""
    for name in ("base", *MODELS):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    make_random(FOLDER / "base")
    for task, name in enumerate(MODELS):
        fine_tune(FOLDER / "base", FOLDER / name, task)
    shutil.rmtree(BIASED, ignore_errors=True)
    for seed, name in enumerate(("base", *MODELS[:3])):
        make_random(BIASED / name, BIASED_CONFIG, seed)
    record(Path(mergekit).absolute())


if __name__ == "__main__":
    main(sys.argv[1])
