"""Statistics of branches besides their parameters, which some operators need."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from merit_jax.core.leaves import Leaf, LeafReader, LeafSpec
from merit_jax.merging.operators.task_vectors import KernelLayout

Shape = tuple[int, ...] | None
"""A shape, or None for a parameter without the statistic."""


class Statistic(NamedTuple):
    """A kind of statistic, of which each branch has one array for each parameter.

    Attributes:
        name: Its key in records.
        words: Its name in messages.
        needs: What it is made from, which a folder of parameters lacks.
        mend: How to make a damaged one again.
        shape: (the parameter's shape and dtype, its layout if it is a linear map) -> the statistic's shape.
        estimated: Whether it is estimated on calibration examples of the branch.
        entries: Whether its entries are those of the diagonal of a matrix without negative eigenvalues, hence not negative.
    """

    name: str
    words: str
    needs: str
    mend: str
    shape: Callable[[LeafSpec, KernelLayout | None], Shape]
    estimated: bool = True
    entries: bool = True

    def check(
        self,
        held: Sequence[LeafReader],
        branches: int,
        trained: Mapping[str, LeafSpec],
        layouts: Mapping[str, KernelLayout | None],
    ) -> None:
        """Refuses statistics that lack a branch or a parameter, or are of another shape.

        Raises:
            ValueError: They do.
        """
        if len(held) != branches:
            raise ValueError(f"got the {self.words} of {len(held)} branches, expected that of {branches}")
        for k, paths in enumerate(reader.paths() for reader in held):
            for path, spec in trained.items():
                expected = self.shape(spec, layouts[path])
                if expected is not None and (path not in paths or tuple(paths[path].shape) != expected):
                    got = list(paths[path].shape) if path in paths else "nothing"
                    raise ValueError(f"{path}: the {self.words} of branch {k} has {got}, expected {list(expected)}")

    def read(self, held: LeafReader, path: str, k: int) -> Leaf:
        """Reads a parameter's statistic in branch k.

        Raises:
            ValueError: It is not finite, or negative where it cannot be.
        """
        leaf = held.read(path)
        if not bool((np.isfinite(leaf) & ((leaf >= 0) | (not self.entries))).all()):
            wrong = "negative or not finite" if self.entries else "not finite"
            raise ValueError(f"{path}: the {self.words} of branch {k} is {wrong}; {self.mend}")
        return leaf


def _same(spec: LeafSpec, layout: KernelLayout | None) -> Shape:
    return tuple(spec.shape)


FISHER = Statistic(
    "fisher",
    "Fisher information",
    "the training data of each model",
    "estimate it again: merit run --stages=merge",
    _same,
)
"""The diagonal of each branch's Fisher information."""


def _of_inputs(spec: LeafSpec, layout: KernelLayout | None) -> Shape:
    """[*layers, in, in] of a kernel."""
    if layout is None:
        return None
    inputs = spec.shape[-2] if layout == "in_out" else spec.shape[-1]
    return (*spec.shape[:-2], inputs, inputs)


INPUT_GRAMS = Statistic(
    "input_grams",
    "Gram matrices of inputs",
    "the training data of each model",
    "take them again: merit run --stages=merge",
    _of_inputs,
    entries=False,
)
"""The mean of `x xᵀ` over the inputs x of each branch's linear maps."""

SECOND_MOMENT = Statistic(
    "second_moment",
    "second moment of Adam",
    "the second moment of Adam at the end of each training",
    "train the branch again with train.keep_second_moment=True",
    _same,
    estimated=False,
)
"""Adam's average of squared gradients at the end of each branch's training."""
