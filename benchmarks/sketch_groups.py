"""Groups that MERIT makes of exact cosines, of strided gradients and of sketches, on some datasets of a finished run.

    python -m benchmarks.sketch_groups --workdir=runs/quickstart --datasets=16

Takes each dataset's whole gradient once, as the run's gradient stage does, and reduces it in every way at once. Prints how alike
the cosines are, and which datasets change their group, however the groups are numbered.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import permutations
from tempfile import TemporaryDirectory

import numpy as np

from launch.wiring import open_run, saved_config
from merit_jax.conflict import cosine_similarity, principal_axes
from merit_jax.core.tree import split
from merit_jax.diagnostics.sketch import fidelity
from merit_jax.gradients.compression import Concatenated, CountSketch, Stride, leaf_shardings
from merit_jax.gradients.estimate import checked, gradient_rows
from merit_jax.partition.median_split import median_split
from merit_jax.pipeline.calibration import calibration_batches
from merit_jax.pipeline.run import Run


def open_finished(workdir: str, mixture: str) -> Run:
    """The run of a workdir."""
    return open_run.open_run(saved_config.read(workdir, {"mixture.path": mixture} if mixture else None), workdir)


def similarities(run: Run, names: list[str], parts: Concatenated) -> Iterator[np.ndarray]:
    """C of the named datasets by each reduction."""
    sizes = [part.size(leaf_shardings(split(run.params, run.config.train.trainable)[0])) for part in parts.parts]
    chosen = [dataset for dataset in run.datasets if dataset.name in names]
    rows = gradient_rows(
        run.loss_fn,
        run.params,
        [calibration_batches(run, dataset) for dataset in chosen],
        trainable=run.config.train.trainable,
        average=run.config.gradients.average,
        reduce=parts,
        place=lambda batch: run.place_batch(batch, leading=1),
    )
    with TemporaryDirectory() as folder:
        matrices = [
            np.lib.format.open_memmap(f"{folder}/{k}.npy", "w+", np.float32, (len(names), size))
            for k, size in enumerate(sizes)
        ]
        for index, (row, dataset) in enumerate(zip(rows, chosen, strict=True)):
            for matrix, piece in zip(
                matrices, np.split(checked(row, dataset.name), np.cumsum(sizes)[:-1]), strict=True
            ):
                matrix[index] = piece
        for matrix in matrices:
            yield np.asarray(cosine_similarity(matrix, names))


def alike(groups: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The other grouping with its groups numbered so that as many datasets as can be keep their group."""
    count = int(groups.max()) + 1
    numberings = (np.array(numbers)[other] for numbers in permutations(range(count)))
    return max(numberings, key=lambda numbered: int((numbered == groups).sum()))


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="of a finished run")
    parser.add_argument("--mixture", default="", help="manifest in place of the run's")
    parser.add_argument("--datasets", type=int, default=16, help="the first so many")
    parser.add_argument("--groups", type=int, default=4)
    options = parser.parse_args(arguments)
    run = open_finished(options.workdir, options.mixture)
    names, samples = run.names[: options.datasets], np.array(run.samples[: options.datasets])
    parts = Concatenated((Stride(1), Stride(5), CountSketch(2**18)))
    whole, *reduced = similarities(run, names, parts)
    rank = options.groups.bit_length() - 1
    groups = [median_split(principal_axes(C, rank).scores, samples) for C in (whole, *reduced)]
    print(f"{len(names)} datasets, {options.groups} groups\n")
    print("| reduction | Pearson | largest difference | datasets in another group |\n|---|---|---|---|")
    for part, C, own in zip(parts.parts[1:], reduced, groups[1:], strict=True):
        found = fidelity(whole, C, str(part), 0, 0)
        moved = [name for name, a, b in zip(names, groups[0], alike(groups[0], own), strict=True) if a != b]
        print(f"| {part} | {found.pearson:.6f} | {np.abs(C - whole).max():.4f} | {', '.join(moved) or 'none'} |")
    for name, group in zip(names, groups[0].tolist(), strict=True):
        print(f"{group} {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
