"""The sizes of a model that the removal of heads changes: parameters, and the keys and values of a token."""

import math
from typing import NamedTuple

import jax

from merit_jax.core.types import Model, Params


class Sizes(NamedTuple):
    """The sizes of a model.

    Attributes:
        parameters: Numbers in its params.
        parameter_bytes: Bytes of them, in their types.
        cache_bytes: Bytes of a key-value cache for each token of a sequence.
    """

    parameters: int
    parameter_bytes: int
    cache_bytes: int


def sizes(model: Model, params: Params) -> Sizes:
    """Measures a model; nothing is computed or allocated.

    Args:
        model: The model.
        params: Its params, or their shapes and dtypes.
    """
    leaves = jax.tree.leaves(params)
    of_caches = [_bytes(jax.eval_shape(lambda n=length: model.init_cache(1, n))) for length in (1, 2)]
    return Sizes(sum(math.prod(leaf.shape) for leaf in leaves), _bytes(leaves), of_caches[1] - of_caches[0])


def _bytes(tree: object) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
