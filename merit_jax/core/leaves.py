"""Parameters one leaf at a time, for code that also serves where JAX is not loaded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, Union, runtime_checkable

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    import jax

Leaf = Union["jax.Array", np.ndarray]
"""The values of one parameter."""


@runtime_checkable
class LeafSpec(Protocol):
    """The shape and dtype of a leaf."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""


@runtime_checkable
class LeafReader(Protocol):
    """Reads the leaves of a params tree by path name, from wherever they are."""

    def paths(self) -> Mapping[str, LeafSpec]:
        """Returns path name -> shape and dtype, sorted by name."""

    def read(self, path: str) -> np.ndarray:
        """Reads the leaf's values."""


@runtime_checkable
class MappedReader(LeafReader, Protocol):
    """A reader of leaves that lie in files as they are, of which parts can be read without the rest."""

    def view(self, path: str) -> np.ndarray | None:
        """Returns the leaf in a mapped file, in its stored dtype; None for one that is computed."""


def is_inexact(dtype: np.dtype) -> bool:
    """Returns whether a dtype is of floating or complex numbers, those of ml_dtypes among them.

    Examples:
        >>> [is_inexact(np.dtype(name)) for name in ("float16", ml_dtypes.bfloat16, "int8", "bool", ml_dtypes.int4)]
        [True, True, False, False, False]
    """
    try:
        ml_dtypes.finfo(dtype)
    except ValueError:
        return False
    return True
