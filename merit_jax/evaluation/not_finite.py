"""The error of scores that are NaN or infinite, which no score, choice or mean may hide."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from merit_jax.core.types import Array

REMEDY = (
    "the model's numbers overflow; train with a lower learning rate, scale the task vector less, or compute in float32 "
    "(model.dtype, --dtype)"
)


class NotFiniteError(ValueError):
    """A number of one example, question or row is NaN or infinite.

    Attributes:
        index: Place of the example among those that were given.
        what: The number, in the end with the names of its example and its model.
    """

    def __init__(self, index: int, what: str) -> None:
        super().__init__(f"{what} is NaN or infinite: {REMEDY}")
        self.index, self.what = index, what


def first_not_finite(values: Array) -> int | None:
    """Returns the place of the first value that is NaN or infinite; None if all are finite.

    Examples:
        >>> first_not_finite(np.array([0.5, float("nan")])), first_not_finite(np.array([0.5]))
        (1, None)
    """
    return next(iter(np.flatnonzero(~np.isfinite(values)).tolist()), None)


@contextlib.contextmanager
def names(name: str | Callable[[int], str]) -> Iterator[None]:
    """Names the example, or the model, in a `NotFiniteError` of what runs inside.

    Args:
        name: The name to put in front: a model's, or of the place of an example, such as its suite and its line.
    """
    try:
        yield
    except NotFiniteError as error:
        front = name if isinstance(name, str) else name(error.index)
        raise NotFiniteError(error.index, f"{front}: {error.what}") from None
