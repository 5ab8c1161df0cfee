"""Compiled prefill, option scoring and greedy decoding for one model."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32

from merit_jax.loss import token_nll
from merit_jax.sharding import to_host
from merit_jax.types import Array, Batch, Cache, Model, Params


class Prefilled(NamedTuple):
    """Prompts that a model has read.

    Attributes:
        cache: Key-value cache with room for what follows.
        last: Hidden state of each prompt's last token.
        lengths: Tokens of each prompt.
    """

    cache: Cache
    last: Float[Array, "b d"]
    lengths: Int32[Array, " b"]


class Inference:
    """A model's inference functions, each compiled once per shape.

    Args:
        model: The model.
        max_new_tokens: Longest generated response, in tokens.
        longest_option: Longest response that will be scored, in tokens.
        stop: Ids that end a generated response.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_new_tokens: int,
        longest_option: int = 0,
        stop: Sequence[int],
    ) -> None:
        self.room = max(max_new_tokens, longest_option)
        self._prefill = jax.jit(partial(_prefill, model, self.room))
        self._score = jax.jit(partial(_score, model))
        self._generate = jax.jit(partial(_generate, model, max_new_tokens, tuple(stop)))

    def prefill(self, params: Params, batch: Batch) -> Prefilled:
        """Reads right-padded prompts, one per row; a row may be empty."""
        return self._prefill(params, batch)

    def score(
        self, params: Params, read: Prefilled, owner: np.ndarray, responses: Sequence[np.ndarray]
    ) -> Float[np.ndarray, " n"]:
        """Summed log-likelihood in nats of each response after the prompt in row `owner`.

        Responses are scored as many at a time as there are prompts, on copies of the prompts' cache.

        Raises:
            ValueError: A response is longer than the room after the prompts.
        """
        rows, longest = len(read.lengths), max(map(len, responses), default=0)
        if longest > self.room:
            raise ValueError(
                f"a response has {longest} tokens, the room after a prompt is {self.room}; raise longest_option"
            )
        scores = []
        for start in range(0, len(responses), rows):
            part = list(responses[start : start + rows])
            filler = rows - len(part)
            tokens = np.zeros((rows, self._width(max(map(len, part)))), np.int32)
            for row, response in enumerate(part):
                tokens[row, : len(response)] = response
            counts = np.array([len(response) for response in part] + [0] * filler, np.int32)
            owners = np.concatenate([owner[start : start + rows], np.zeros(filler, owner.dtype)]).astype(np.int32)
            scores.append(to_host(self._score(params, read, owners, tokens, counts))[: len(part)])
        return np.concatenate(scores)

    def _width(self, longest: int) -> int:
        """Padded length of responses: powers of four, so that few shapes are compiled and one word costs little."""
        return min(self.room, next(4**k for k in range(1, 16) if 4**k >= longest))

    def generate(self, params: Params, read: Prefilled) -> list[np.ndarray]:
        """Greedy continuation of each prompt, up to `max_new_tokens`, without the stop token."""
        tokens, lengths = map(to_host, self._generate(params, read))
        return [row[:length] for row, length in zip(tokens, lengths, strict=True)]


def _prefill(model: Model, room: int, params: Params, batch: Batch) -> Prefilled:
    rows, length = batch.tokens.shape
    lengths = batch.segments.sum(axis=1).astype(jnp.int32)
    hidden, cache = model.prefill(params, batch, model.init_cache(rows, length + room))
    last = jnp.take_along_axis(hidden, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]
    return Prefilled(cache, last, lengths)


def _score(
    model: Model,
    params: Params,
    read: Prefilled,
    owner: Int32[Array, " b"],
    tokens: Int32[Array, "b r"],
    counts: Int32[Array, " b"],
) -> Float[Array, " b"]:
    """Log-likelihood of tokens[: counts] after the prompt of owner."""
    cache = jax.tree.map(lambda leaf: jnp.take(leaf, owner, axis=1), read.cache)
    slots = read.lengths[owner][:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)
    hidden, _ = model.decode(params, tokens, slots, cache)
    before = jnp.concatenate([read.last[owner][:, None], hidden[:, :-1]], axis=1)
    nll = token_nll(model.unembed(params, before), tokens)
    return -(nll * (jnp.arange(tokens.shape[1]) < counts[:, None])).sum(axis=1)


class _Writing(NamedTuple):
    """State of greedy decoding."""

    count: Int32[Array, ""]
    tokens: Int32[Array, "b n"]
    lengths: Int32[Array, " b"]
    finished: Bool[Array, " b"]
    following: Int32[Array, " b"]
    cache: Cache


def _generate(
    model: Model, room: int, stop: tuple[int, ...], params: Params, read: Prefilled
) -> tuple[Int32[Array, "b n"], Int32[Array, " b"]]:
    """(tokens, how many of them come before the stop)."""
    rows = read.lengths.shape[0]

    def choose(hidden: Array) -> Array:
        return jnp.argmax(model.unembed(params, hidden), axis=-1).astype(jnp.int32)

    def going(state: _Writing) -> Array:
        return (state.count < room) & ~state.finished.all()

    def write(state: _Writing) -> _Writing:
        token = state.following
        finished = state.finished | jnp.isin(token, jnp.array(stop, jnp.int32))
        tokens = state.tokens.at[:, state.count].set(token)
        slots = (read.lengths + state.count)[:, None]
        hidden, cache = model.decode(params, token[:, None], slots, state.cache)
        return _Writing(state.count + 1, tokens, state.lengths + ~finished, finished, choose(hidden[:, 0]), cache)

    start = _Writing(
        jnp.int32(0),
        jnp.zeros((rows, room), jnp.int32),
        jnp.zeros(rows, jnp.int32),
        jnp.zeros(rows, bool),
        choose(read.last),
        read.cache,
    )
    end = jax.lax.while_loop(going, write, start)
    return end.tokens, end.lengths
