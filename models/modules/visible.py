"""A description of the keys that a query sees, from which each implementation of attention makes the mask that it needs."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from merit_jax.models import interface


class Tokens(NamedTuple):
    """Properties of the tokens on one side of attention.

    Attributes:
        group: Number of the segment, image or window, 0 or above; None: all tokens are of one.
        place: Place in the order of the tokens; None: there is no order.
        block: Number of the image that the token is a part of, 0 if of none; None: there are no images.
    """

    group: Int[Array, "#b t"] | None = None
    place: Int[Array, "#b t"] | None = None
    block: Int[Array, "#b t"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Visible:
    """The keys that each query sees: those of its group, up to its own place, or anywhere in its block, within a window.

    Attributes:
        query: Properties of the queries.
        key: The same properties of the keys.
        window: Keys that a query sees at most, its own place included, where there is an order; None: all.
        pairs: `seen` without the window, where it is made once for all layers; None: each makes its own.
        whole: Whether queries and keys are the same rows, whose places, if there is an order, are 0, 1, 2 and so on.
        windows: All values that `window` has in the layers of a model.
    """

    query: Tokens
    key: Tokens
    window: Int[Array, ""] | None = None
    pairs: Bool[Array, "#b 1 t s"] | None = None
    whole: bool = dataclasses.field(default=False, metadata={"static": True})
    windows: tuple[int, ...] = dataclasses.field(default=(), metadata={"static": True})

    def dense(self) -> Bool[Array, "#b 1 t s"] | None:
        """Returns the mask of all pairs; None if every query sees every key."""
        pairs = seen(self.query, self.key) if self.pairs is None else self.pairs
        if self.window is None or pairs is None:
            return pairs
        return pairs & (_distance(self.query, self.key) < self.window)


def seen(query: Tokens, key: Tokens) -> Bool[Array, "#b 1 t s"] | None:
    """Returns True where a query sees a key, whatever the window; None if every query sees every key.

    Examples:
        >>> tokens = Tokens(group=jnp.array([[1, 1, 2]]), place=jnp.arange(3)[None])
        >>> seen(tokens, tokens).astype(int).tolist()
        [[[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]]
    """
    found = None
    if query.place is not None:
        found = _distance(query, key) >= 0
        if query.block is not None:
            found = found | (_pairs(query.block) == _pairs_key(key.block)) & (_pairs(query.block) > 0)
    if query.group is not None:
        same = _pairs(query.group) == _pairs_key(key.group)
        found = same if found is None else same & found
    return found


def _distance(query: Tokens, key: Tokens) -> Int[Array, "#b 1 t s"]:
    """Returns the place of each query minus that of each key."""
    return _pairs(query.place) - _pairs_key(key.place)


def _pairs(of_queries: Int[Array, "#b t"] | None) -> Int[Array, "#b 1 t 1"]:
    return jnp.asarray(of_queries)[:, None, :, None]


def _pairs_key(of_keys: Int[Array, "#b s"] | None) -> Int[Array, "#b 1 1 s"]:
    return jnp.asarray(of_keys)[:, None, None, :]


def in_segments(segments: Int[interface.Array, "b t"], block: Int[Array, "b t"] | None = None) -> Visible:
    """Describes rows in which a token sees itself and earlier tokens of its own segment, and all of its block.

    Examples:
        >>> in_segments(jnp.array([[1, 1, 2]])).dense().astype(int).tolist()
        [[[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]]
    """
    segments = jnp.asarray(segments)
    tokens = Tokens(segments, jnp.arange(segments.shape[1])[None], block)
    return Visible(tokens, tokens, whole=True)


def in_cache(slots: Int[interface.Array, "b t"], length: int, block: Int[Array, "b t"] | None = None) -> Visible:
    """Describes a cache of `length` slots of which a token at slot p sees 0 to p, and all of its block.

    Args:
        slots: Those of the tokens.
        length: Slots of the cache.
        block: Of tokens in the first slots, in order; None: there are no images.

    Examples:
        >>> in_cache(jnp.array([[1, 2]]), 4).dense().astype(int).tolist()
        [[[[1, 1, 0, 0], [1, 1, 1, 0]]]]
    """
    of_keys = None
    if block is not None:
        of_keys = jnp.pad(block[:, :length], [(0, 0), (0, max(length - block.shape[1], 0))])
    return Visible(Tokens(None, jnp.asarray(slots), block), Tokens(None, jnp.arange(length)[None], of_keys))


def in_groups(groups: Int[interface.Array, "#b t"], of_keys: Int[interface.Array, "#b s"] | None = None) -> Visible:
    """Describes tokens without an order, each of which sees those of its group, or the keys whose own groups are given."""
    tokens = Tokens(jnp.asarray(groups))
    if of_keys is None:
        return Visible(tokens, tokens, whole=True)
    return Visible(tokens, Tokens(jnp.asarray(of_keys)))


EVERYWHERE = Visible(Tokens(), Tokens())
"""Every query sees every key."""


def image_blocks(
    tokens: Int[interface.Array, "b t"], segments: Int[interface.Array, "b t"], image_token: int
) -> Int[jax.Array, "b t"]:
    """Numbers the images of a row, the neighbouring image tokens of one segment, from 1; other tokens get 0.

    Examples:
        >>> image_blocks(jnp.array([[9, 9, 1, 9]]), jnp.ones((1, 4), int), 9).tolist()
        [[1, 1, 0, 2]]
    """
    segments = jnp.asarray(segments)
    image = (jnp.asarray(tokens) == image_token) & (segments > 0)
    before = image & (segments == jnp.roll(segments, 1, axis=1))
    first = image & ~(before & jnp.roll(image, 1, axis=1)).at[:, 0].set(False)
    return jnp.where(image, jnp.cumsum(first, axis=1), 0)
