"""Low-rank updates of a model's kernels, as the method sees them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from merit_jax.core.types import Array, Leaves, Model


@runtime_checkable
class Adapter(Protocol):
    """Low-rank updates of some kernels, trained in their place: theta0 is frozen, and a branch is its updates alone."""

    @property
    def model(self) -> Model:
        """Functions of params that hold the updates' leaves beside theta0's."""

    @property
    def kernels(self) -> Mapping[str, tuple[str, ...]]:
        """Path of a kernel of theta0 -> paths of the leaves of its update."""

    @property
    def abstract(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Path of a leaf of the updates -> shape and type."""

    @property
    def logical_axes(self) -> Mapping[str, tuple[str | None, ...]]:
        """Path of a leaf of the updates -> a logical name for each dimension."""

    @property
    def four_bits(self) -> Mapping[str, Any]:
        """The kernels that training holds in four bits."""

    @property
    def is_low_rank(self) -> bool:
        """True if a trained model differs from theta0 by products of low rank, which can be summed exactly."""

    def start(self, seed: int, read: Callable[[str], Array]) -> Leaves:
        """Returns the leaves at which the model is theta0.

        Args:
            seed: Of those that are random.
            read: Path of a kernel -> theta0's.
        """

    def stored(self, path: str, leaf: jax.Array) -> Any:
        """Returns a leaf of theta0 as training holds it."""

    def fold(self, kernel: str, theta0: Array, read: Callable[[str], Array]) -> np.ndarray:
        """Returns a kernel with its update written into it.

        Args:
            kernel: Its path.
            theta0: The kernel.
            read: Path of a leaf of the updates -> the leaf.
        """


@runtime_checkable
class Adaptable(Protocol):
    """A model that can have low-rank updates."""

    @property
    def adapted(self) -> Callable[[str, int, float, Sequence[str], Sequence[str]], Adapter]:
        """(form, rank, alpha, patterns over the paths of kernels, patterns that these match too) -> the updates."""
