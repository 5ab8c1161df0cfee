"""The loops that benchmarks/gradients.py times, each a process of its own: `python -m benchmarks.gradient_loops LOOP ...`.

A process does its loop once to warm up and says "ready". It does it again for every line that it reads, answers with the seconds,
and ends with its largest resident memory in bytes.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import peak_bytes

CONFIGS = {
    "smollm2": ("merit_jax.configs.smollm2_bigbench", {"model.scan_unroll": 30}),
    "quickstart": ("merit_jax.configs.quickstart", {}),
}
"""Model -> its config, and what a CPU wants different."""


def open_run(options: argparse.Namespace) -> Any:
    """The run whose gradient stage is timed, with parameters and examples in memory."""
    import importlib

    from merit_jax.launch.wiring import open_run

    module, changes = CONFIGS[options.model]
    config = importlib.import_module(module).get_config()
    with config.unlocked():
        config.update_from_flattened_dict({**changes, **json.loads(options.config)})
    run = open_run.open_run(config, options.root / f"{options.model}-run")
    chosen = [dataset for dataset in run.datasets if len(dataset.train) >= config.gradients.examples]
    shared = run.shared.with_value("datasets", tuple(chosen[: options.datasets]))
    return dataclasses.replace(run, shared=shared)


def stage(options: argparse.Namespace) -> Callable[[], None]:
    """The gradient stage: batches, placement, gradients, reduction, and one .npy for each dataset."""
    from merit_jax.pipeline.estimate_gradients import estimate_gradients

    run = open_run(options)

    def loop() -> None:
        shutil.rmtree(run.workdir.gradients, ignore_errors=True)
        estimate_gradients(run)

    return loop


def bare(options: argparse.Namespace) -> Callable[[], None]:
    """`jax.value_and_grad` of the same loss over the same batches, which are on the device before; nothing is kept."""
    import jax
    import jax.numpy as jnp

    from merit_jax.core import tree
    from merit_jax.pipeline.calibration import calibration_batches

    run = open_run(options)
    batches = [run.place_batch(batch) for dataset in run.datasets for batch in calibration_batches(run, dataset)]
    leaves, frozen = tree.split(run.params, run.config.train.trainable)

    @jax.jit
    def value_and_grad(leaves: Any, frozen: Any, batch: Any) -> Any:
        def loss(leaves: Any) -> jax.Array:
            nll, tokens = run.loss_fn(tree.join(leaves, frozen), batch)
            return (nll / jnp.maximum(tokens, 1)).sum()

        return jax.value_and_grad(loss)(leaves)

    def loop() -> None:
        for batch in batches:
            jax.block_until_ready(value_and_grad(leaves, frozen, batch))

    return loop


def transformers(options: argparse.Namespace) -> Callable[[], None]:
    """PyTorch: loss and backward pass of each batch, every fifth entry of our leaves, one .npy for each dataset."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(options.root / "hf", dtype=torch.float32)
    model.get_input_embeddings().padding_idx = None  # it would drop the padding token's gradient, also in the text
    layout = json.loads((options.root / "layout.json").read_text())
    tensors, out = dict(model.named_parameters()), options.root / "transformers"
    out.mkdir(exist_ok=True)

    def add(batch: dict[str, Any]) -> int:
        """Backward through the sum of the examples' mean losses; returns how many examples there are."""
        ids, targets, weights, segments = (
            torch.from_numpy(batch[name]) for name in ("tokens", "targets", "weights", "segments")
        )
        logits = model(input_ids=ids.long(), attention_mask=(segments > 0).long(), use_cache=False).logits
        nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets.long(), reduction="none")
        tokens = weights.sum(1)
        ((nll * weights).sum(1) / tokens.clamp(min=1)).sum().backward()
        return int((tokens > 0).sum())

    def loop() -> None:
        for folder in sorted((options.root / "batches").iterdir()):
            count = sum(add(np.load(file)) for file in sorted(folder.iterdir()))
            kept = [
                (tensors[name].grad.T if transposed else tensors[name].grad)[..., ::5].reshape(-1)
                for name, transposed in layout
            ]
            np.save(out / f"{folder.name}.npy", (torch.cat(kept) / count).numpy())
            model.zero_grad(set_to_none=True)

    return loop


def prepare(options: argparse.Namespace) -> None:
    """Writes what the PyTorch loop reads: the model, the padded batches, and the order of our leaves."""
    import numpy as np

    from merit_jax.models import export_hf
    from merit_jax.models.families.llama import ROWS
    from merit_jax.pipeline.calibration import calibration_batches

    run = open_run(options)
    for name in ("hf", "batches", "transformers"):
        shutil.rmtree(options.root / name, ignore_errors=True)
    export_hf(options.root / "hf", run.theta0.leaves().read, run.theta0.path, dtype="float32")
    for index, dataset in enumerate(run.datasets):
        folder = options.root / "batches" / f"{index:03d}"
        folder.mkdir(parents=True)
        for number, batch in enumerate(calibration_batches(run, dataset)):
            fields = {name: value for name, value in batch._asdict().items() if value is not None}
            np.savez(folder / f"{number:03d}.npz", **fields)
    keys = {row.path: (row.key, row.transpose) for row in ROWS}
    layers = run.theta0.model.config.layers
    layout = [
        (key.format(layer=layer), transposed)
        for path in sorted(run.theta0.leaves().paths())
        for key, transposed in [keys[path]]
        for layer in range(layers if "{layer}" in key else 1)
    ]
    (options.root / "layout.json").write_text(json.dumps(layout))


def compare(options: argparse.Namespace) -> None:
    """Prints the least cosine between the stage's rows and those of PyTorch, and the largest difference of their norms."""
    import numpy as np

    from merit_jax.gradients.store import GradientStore

    run = open_run(options)
    ours = [row[:] for row in GradientStore(run.workdir.gradients).rows(run.names)]
    theirs = [np.load(file) for file in sorted((options.root / "transformers").iterdir())]
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(ours, theirs, strict=True)]
    norms = [(np.linalg.norm(a), np.linalg.norm(b)) for a, b in pairs]
    cosines = [float(a @ b / (x * y)) for (a, b), (x, y) in zip(pairs, norms, strict=True)]
    print(json.dumps({"cosine": min(cosines), "norm": max(abs(float(x / y) - 1) for x, y in norms)}))


LOOPS = {"stage": stage, "bare": bare, "transformers": transformers}
ONCE = {"prepare": prepare, "compare": compare}


def parse() -> argparse.Namespace:
    """The command line, which benchmarks/gradients.py writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=[*LOOPS, *ONCE])
    parser.add_argument("--model", required=True, choices=list(CONFIGS))
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--datasets", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--config", required=True, help="keys of the config to set, as JSON")
    return parser.parse_args()


def main() -> None:
    """Serves one loop."""
    options = parse()
    if options.loop in ONCE:
        ONCE[options.loop](options)
        return
    loop = LOOPS[options.loop](options)
    loop()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loop()
        print(time.perf_counter() - start, flush=True)
    print(peak_bytes())


if __name__ == "__main__":
    main()
