"""Fidelity of C: cosines of compressed gradients against those of whole ones (MERIT §4.1)."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

from merit_jax.conflict import cosine_similarity
from merit_jax.core import tree
from merit_jax.core.types import Batch, LossFn, Params
from merit_jax.gradients.compressor import Compressor, Concatenated, leaf_shardings
from merit_jax.gradients.count_sketch import CountSketch
from merit_jax.gradients.estimate import checked, gradient_rows
from merit_jax.gradients.stride import Stride


class Fidelity(NamedTuple):
    """One compressor's cosines compared with those of the whole gradients, over all pairs of datasets.

    Attributes:
        reduction: "stride" or "countsketch".
        size: The stride, or the sketch's width.
        entries: Numbers kept of each gradient.
        pearson: Correlation.
        spearman: Rank correlation.
        mae: Mean absolute difference.
        rmse: Root of the mean squared difference.
    """

    reduction: str
    size: int
    entries: int
    pearson: float
    spearman: float
    mae: float
    rmse: float


class Sketch(NamedTuple):
    """Compressors compared with the whole gradient.

    Attributes:
        datasets: Names of the datasets compared.
        entries: Entries of a whole gradient.
        similarity: C of the whole gradients.
        rows: Fidelity of every compressor.
    """

    datasets: tuple[str, ...]
    entries: int
    similarity: Float[np.ndarray, "t t"]
    rows: tuple[Fidelity, ...]


def sketch(
    loss_fn: LossFn,
    params: Params,
    batches: Sequence[Iterable[Batch]],
    names: Sequence[str],
    *,
    strides: Sequence[int] = (5,),
    widths: Sequence[int] = (2**18,),
    trainable: Sequence[str] = (".*",),
    average: str = "example",
    place: Callable[[Batch], Batch] = lambda batch: batch,
) -> Sketch:
    """Compares C of compressed gradients with C of whole ones, all from one gradient of each dataset.

    Holds every dataset's whole gradient, in float32, on the host.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]), one example per row.
        params: theta0.
        batches: Per dataset, its calibration examples.
        names: Of the datasets.
        strides: Strides s to compare.
        widths: Widths of a CountSketch to compare.
        trainable: Regular expressions over parameter paths.
        average: "example" or "token", as for the gradients of the split.
        place: Puts a stacked batch, leaves [1, rows, ...], on the devices.

    Raises:
        ValueError: Fewer than three datasets (two have one cosine, which correlates with nothing), or no compressor.
    """
    if len(names) < 3:
        raise ValueError(f"the fidelity of C needs at least 3 datasets, got {len(names)}")
    reductions: dict[tuple[str, int], Compressor] = {("stride", s): Stride(s) for s in strides}
    reductions |= {("countsketch", w): CountSketch(w) for w in widths}
    if not reductions:
        raise ValueError("nothing to compare: diagnostics.strides and diagnostics.widths are empty; give one a value")
    every = Concatenated((Stride(1), *reductions.values()))
    layout = leaf_shardings(tree.split(params, trainable)[0])
    sizes = [part.size(layout) for part in every.parts]
    parts = [np.empty((len(names), size), np.float32) for size in sizes]
    found = gradient_rows(
        loss_fn,
        params,
        batches,
        trainable=trainable,
        average=average,
        reduce=every,
        place=place,
    )
    for index, (row, name) in enumerate(zip(found, names, strict=True)):
        for part, piece in zip(parts, np.split(checked(row, name), np.cumsum(sizes)[:-1]), strict=True):
            part[index] = piece
    whole, *reduced = (np.asarray(cosine_similarity(part, names)) for part in parts)
    fidelities = tuple(
        fidelity(whole, C, kind, size, part.shape[1])
        for (kind, size), C, part in zip(reductions, reduced, parts[1:], strict=True)
    )
    return Sketch(tuple(names), sizes[0], whole, fidelities)


def fidelity(
    whole: Float[np.ndarray, "t t"], reduced: Float[np.ndarray, "t t"], reduction: str, size: int, entries: int
) -> Fidelity:
    """Measures agreement of two similarity matrices over their entries above the diagonal.

    Examples:
        >>> C = np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.6], [0.4, 0.6, 1.0]])
        >>> found = fidelity(C, C - 0.1, "stride", 5, 200)
        >>> round(found.pearson, 3), round(found.mae, 3)
        (1.0, 0.1)
    """
    above = np.triu_indices(len(whole), k=1)
    x, y = whole[above].astype(np.float64), reduced[above].astype(np.float64)
    difference = y - x
    return Fidelity(
        reduction,
        size,
        entries,
        float(scipy.stats.pearsonr(x, y).statistic),
        float(scipy.stats.spearmanr(x, y).statistic),
        float(np.abs(difference).mean()),
        float(np.sqrt(np.square(difference).mean())),
    )
