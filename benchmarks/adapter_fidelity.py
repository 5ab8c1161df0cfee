"""Fidelity of the split in the space of adapters: what gradients of the updates, in place of theta0's, change in C and groups.

    python -m benchmarks.adapter_fidelity --config=configs/quickstart.py --root=runs/adapter-fidelity --seeds=0,1,2

For each seed, each dataset's whole gradient is taken of theta0's trainable parameters, of the kernels that adapters would update,
and of adapters of several forms and ranks at theta0. Prints how the cosines agree with those of the first over all pairs of
datasets, and how many datasets the split puts into another group; the last line compares the first on two halves of the examples.
Each seed's figures are kept under the root; run again, it goes on.
"""

import re
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float

from benchmarks.study_fidelity import agreement, cosines, define_flags, halves_of, seed_result, table
from merit_jax.conflict.blocked_products import inner_products
from merit_jax.core import tree
from merit_jax.data.bucketing import calibration_examples
from merit_jax.gradients.compressor import leaf_shardings
from merit_jax.gradients.estimate import checked, gradient_rows
from merit_jax.gradients.stride import Stride
from merit_jax.launch.console import app
from merit_jax.pipeline.branch_parameters import GradientSpace, gradient_space
from merit_jax.pipeline.calibration import batches_of
from merit_jax.pipeline.run import Run

FLAGS = flags.FLAGS

ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "lora, r = 4": {"adapter": "lora", "adapter_rank": 4},
    "lora, r = 16": {"adapter": "lora", "adapter_rank": 16},
    "dora, r = 16": {"adapter": "dora", "adapter_rank": 16},
    "qlora, r = 16": {"adapter": "qlora", "adapter_rank": 16},
}
"""The adapters by name, as keys of `config.train`."""
KERNELS = "the kernels that adapters update"


def measure(run: Run) -> dict[str, dict[str, float]]:
    """Returns, for each space and for two halves of the examples, the agreement of C and the datasets that move."""
    examples = [calibration_examples(d, run.config.gradients.examples, run.config.seed) for d in run.datasets]
    whole = GradientSpace(run.loss_fn, run.params, run.config.train.trainable)
    C = _similarity(run, whole, examples)
    adapted = {name: _with(run, changes) for name, changes in ADAPTERS.items()}
    kernels = [f"^{re.escape(path)}$" for path in _adapter(next(iter(adapted.values()))).kernels]
    found = {KERNELS: agreement(run, C, _similarity(run, whole._replace(trainable=kernels), examples))}
    for name, other in adapted.items():
        found[f"adapters: {name}"] = agreement(run, C, _similarity(run, gradient_space(other), examples))
    halves = [_similarity(run, whole, half) for half in zip(*(halves_of(run, d) for d in run.datasets), strict=True)]
    return found | {"two halves of the examples": agreement(run, *halves)}


def _with(run: Run, changes: Mapping[str, Any]) -> Run:
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.gradients.space = "adapter"
        config.train.update(changes)
    return run.derive(config, run.workdir)


def _adapter(run: Run) -> Any:
    return run.adapter


def _similarity(run: Run, space: GradientSpace, examples: Sequence[Any]) -> Float[np.ndarray, "t t"]:
    """Returns the cosines of the datasets' whole gradients in a space; the gradients themselves are on disk."""
    keep = Stride(1)
    rows = gradient_rows(
        space.loss_fn,
        space.params,
        [batches_of(run, part) for part in examples],
        trainable=space.trainable,
        average="example",
        reduce=keep,
        place=lambda batch: run.place_batch(batch, leading=1),
    )
    size = keep.size(leaf_shardings(tree.split(space.params, space.trainable)[0]))
    with TemporaryDirectory() as folder:
        matrix = np.lib.format.open_memmap(f"{folder}/rows.npy", "w+", np.float32, (len(examples), size))
        for index, row in enumerate(rows):
            matrix[index] = checked(row, run.names[index])
        return cosines(inner_products(matrix, np.ones(len(examples))).inner)


def main(argv: Sequence[str]) -> None:
    """Measures what is missing and prints the table."""
    config = app.config()
    compared = {
        "targets": list(config.train.adapter_targets),
        "adapters": {name: dict(changes) for name, changes in ADAPTERS.items()},
    }
    seeds = map(int, FLAGS.seeds)
    print(table([seed_result(config, FLAGS.root, seed, measure, compared) for seed in seeds]))


if __name__ == "__main__":
    app.start(main, define_flags)
