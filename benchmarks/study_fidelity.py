"""Fidelity of the split: what compressing the gradients changes in C and in the groups, beside what half the examples change.

    python -m benchmarks.study_fidelity --config=configs/quickstart_new_forms.py --seeds=0,1,2 --root=runs/fidelity

For each seed, each dataset's whole gradient is taken on two halves of its calibration examples and compressed in every way at
once; everything else follows from inner products. Prints, for each compressor, how its cosines agree with those of whole
gradients over all pairs of datasets, and how many datasets its split puts into another group. The last line compares the whole
gradients of the two halves with each other. Each seed's figures are kept under the root; run again, it goes on.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from absl import flags
from jaxtyping import Float
from ml_collections import ConfigDict
from tabulate import tabulate

from merit_jax.conflict import principal_axes
from merit_jax.conflict.blocked_products import inner_products
from merit_jax.core import tree
from merit_jax.core.types import Array, Leaves
from merit_jax.data.bucketing import calibration_examples
from merit_jax.diagnostics.sketch import fidelity
from merit_jax.gradients.compressor import Compressor, Concatenated, LeafShardings, leaf_shardings
from merit_jax.gradients.count_sketch import CountSketch
from merit_jax.gradients.estimate import checked, gradient_rows
from merit_jax.gradients.stride import Stride
from merit_jax.launch.console import app
from merit_jax.launch.wiring import open_run
from merit_jax.partition.agreement import moved
from merit_jax.partition.median_split import median_split
from merit_jax.pipeline.calibration import batches_of
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import is_current, read_json, write_json
from merit_jax.workdir.paths import absolute

FLAGS = flags.FLAGS

Figures = Mapping[str, Mapping[str, float]]
"""Name of what is compared with whole gradients -> its measures."""


@dataclasses.dataclass(frozen=True)
class Columns(Compressor):
    """`x[..., ::s]`, which version 0.1 called a stride: the same columns of every row; of leaves that are not sharded.

    Attributes:
        stride: s.
    """

    stride: int
    definition = "every s-th column"

    def device_part(self, leaves: Leaves, layout: LeafShardings) -> Leaves:
        """Takes the columns."""
        return {path: leaf[..., :: self.stride] if leaf.ndim else leaf for path, leaf in leaves.items()}

    def row(self, kept: Leaves, layout: LeafShardings) -> Float[np.ndarray, " d"]:
        """Joins the leaves, in path order."""
        return np.concatenate([np.ravel(kept[path]) for path in sorted(kept)])

    def size(self, layout: LeafShardings) -> int:
        """Returns the number of entries that are kept."""
        return sum(math.prod(s.shape[:-1]) * -(-(s.shape or (1,))[-1] // self.stride) for s in layout.values())


COMPRESSORS: Mapping[str, Compressor] = {
    "whole": Stride(1),
    "columns, s = 5 (version 0.1)": Columns(5),
    "stride, s = 5": Stride(5),
    "countsketch, 2^18": CountSketch(2**18),
}
"""The compressors by name; the first keeps everything."""


def measure(run: Run) -> dict[str, dict[str, float]]:
    """Returns, for each compressor and for two halves of the examples, the agreement of C and the datasets that move."""
    found = similarities(run)
    whole = found["whole"]
    pairs = {name: (whole, found[name]) for name in list(COMPRESSORS)[1:]}
    pairs["two halves of the examples, whole gradients"] = (found["first half"], found["second half"])
    return {name: agreement(run, *pair) for name, pair in pairs.items()}


def similarities(run: Run) -> dict[str, Float[np.ndarray, "t t"]]:
    """Returns C by each compressor, and by whole gradients on each half of the examples."""
    halves = [half for dataset in run.datasets for half in halves_of(run, dataset)]
    sizes = np.array([len(half) for half in halves], np.float64).reshape(-1, 2)
    share = (sizes / sizes.sum(axis=1, keepdims=True)).ravel()
    whole = np.zeros((len(run.names), len(halves)))
    whole[np.repeat(np.arange(len(run.names)), 2), np.arange(len(halves))] = share
    products = dict(zip(COMPRESSORS, _products(run, halves), strict=True))
    found = {name: cosines(whole @ product @ whole.T) for name, product in products.items()}
    first = products["whole"]
    return found | {"first half": cosines(first[::2, ::2]), "second half": cosines(first[1::2, 1::2])}


def halves_of(run: Run, dataset: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Returns every other calibration example of a dataset, and the rest."""
    examples = calibration_examples(dataset, run.config.gradients.examples, run.config.seed)
    return examples[::2], examples[1::2]


def _products(run: Run, halves: Sequence[Sequence[Any]]) -> Iterator[Float[np.ndarray, "n n"]]:
    """Yields the inner products of the halves' gradients by each compressor; the gradients themselves are on disk."""
    every = Concatenated(tuple(COMPRESSORS.values()))
    layout = leaf_shardings(tree.split(run.params, run.config.train.trainable)[0])
    sizes = [part.size(layout) for part in every.parts]
    labels = [f"{name}, half {half}" for name in run.names for half in (1, 2)]
    rows = gradient_rows(
        run.loss_fn,
        run.params,
        [batches_of(run, half) for half in halves],
        trainable=run.config.train.trainable,
        average="example",
        reduce=every,
        place=lambda batch: run.place_batch(batch, leading=1),
    )
    with TemporaryDirectory() as folder:
        shape = (len(halves), sum(sizes))
        matrix = np.lib.format.open_memmap(f"{folder}/rows.npy", "w+", np.float32, shape)
        for index, row in enumerate(rows):
            matrix[index] = checked(row, labels[index])
        ends = np.cumsum([0, *sizes])
        for start, end in itertools.pairwise(ends):
            yield inner_products(matrix[:, start:end], np.ones(len(halves))).inner


def cosines(products: Float[np.ndarray, "t t"]) -> Float[np.ndarray, "t t"]:
    """Returns the cosines of vectors with these inner products."""
    norms = np.sqrt(np.diag(products))
    return products / norms[:, None] / norms[None, :]


def agreement(run: Run, C: Float[np.ndarray, "t t"], other: Float[np.ndarray, "t t"]) -> dict[str, float]:
    """Returns how the cosines of two matrices agree, and how many datasets they put into different groups."""
    found = fidelity(C, other, "", 0, 0)
    ours, theirs = (groups(run, matrix) for matrix in (C, other))
    return {
        "pearson": found.pearson,
        "spearman": found.spearman,
        "mae": found.mae,
        "largest": float(np.abs(C - other).max()),
        "moved": len(moved(ours, theirs)),
        "datasets": len(C),
    }


def groups(run: Run, C: Float[np.ndarray, "t t"]) -> Array:
    """Returns MERIT's groups of a similarity matrix."""
    axes = principal_axes(C.astype(np.float32), run.config.partition.groups.bit_length() - 1)
    return median_split(np.asarray(axes.scores), np.array(run.samples))


def seed_result(
    config: ConfigDict, root: str, seed: int, measure: Callable[[Run], Figures], compared: Mapping[str, Any]
) -> Figures:
    """Returns the figures of one seed: those under the root, or measured now.

    Args:
        config: The run's.
        root: Folder of the figures.
        seed: Value of `config.seed`.
        measure: Measures them.
        compared: What is compared, as JSON values: figures of anything else are measured again.
    """
    with config.unlocked():
        config.seed = seed
    run = open_run.open_run(config, f"{root}/seed-{seed}")
    path = absolute(root) / f"seed-{seed}.json"
    inputs = {
        "theta0": run.theta0_fingerprint,
        "text": run.text_inputs,
        "examples": config.gradients.examples,
        "datasets": run.digests(),
        "groups": config.partition.groups,
        "trainable": list(config.train.trainable),
        **compared,
    }
    if not is_current(path, inputs, overwrite=False):
        write_json(path, {"inputs": inputs, "agreement": measure(run), "device": jax.devices()[0].device_kind})
    return read_json(path)["agreement"]


def table(results: Sequence[Figures]) -> str:
    """Returns the figures of all seeds as Markdown, one column of numbers for each measure, seeds separated by strokes."""
    forms = {"pearson": ".4f", "spearman": ".4f", "mae": ".4f", "largest": ".3f", "moved": "d"}
    rows = [
        [name, *(" / ".join(format(found[name][key], form) for found in results) for key, form in forms.items())]
        for name in results[0]
    ]
    of = next(iter(results[0].values()))["datasets"]
    header = ["", "Pearson", "Spearman", "mean |difference|", "largest", f"in another group, of {of}"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("root", None, "Folder of the figures.", required=True)
    flags.DEFINE_list(
        "seeds", ["0", "1", "2"], "Values of config.seed: other calibration examples, and other random matrices."
    )


def main(argv: Sequence[str]) -> None:
    """Measures what is missing and prints the table."""
    compared = {"compressors": [f"{name}: {part.definition}" for name, part in COMPRESSORS.items()]}
    seeds = map(int, FLAGS.seeds)
    print(table([seed_result(app.config(), FLAGS.root, seed, measure, compared) for seed in seeds]))


if __name__ == "__main__":
    app.start(main, define_flags)
