"""Compiles prefill, option scoring and greedy decoding for one model."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32

from merit_jax.core.loss import token_nll
from merit_jax.core.sharding import to_host
from merit_jax.core.types import Array, Batch, Cache, Model, Params
from merit_jax.evaluation.not_finite import NotFiniteError

CHECK_EVERY = 32
"""Tokens that are written between two checks for responses that have ended."""

NO_TOKEN = -2
"""Stands for a token whose logits are not finite, so that no token is the likeliest."""

Ended = Callable[[list[np.ndarray]], np.ndarray]
"""Ids of every row's response until now -> bool[rows]: True for those that need no more."""


class Prefilled(NamedTuple):
    """Prompts after a model's forward pass.

    Attributes:
        cache: Key-value cache with room for the responses.
        last: Hidden state of each prompt's last token.
        lengths: Tokens of each prompt.
    """

    cache: Cache
    last: Float[Array, "b d"]
    lengths: Int32[Array, " b"]


class Scored(NamedTuple):
    """The likelihood of responses.

    Attributes:
        log_likelihood: Summed over each response's tokens, in nats.
        greedy: Whether each token is the likeliest one in its place.
    """

    log_likelihood: Float[np.ndarray, " n"]
    greedy: Bool[np.ndarray, " n"]


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
        self.room, self._new = max(max_new_tokens, longest_option), max_new_tokens
        self._prefill = jax.jit(partial(_prefill, model, self.room))
        self._score = jax.jit(partial(_score, model))
        self._begin = jax.jit(partial(_begin, model, max_new_tokens))
        self._write = jax.jit(partial(_write, model, tuple(stop)))

    def prefill(self, params: Params, batch: Batch) -> Prefilled:
        """Reads right-padded prompts, one per row; a row may be empty."""
        return self._prefill(params, batch)

    def score(self, params: Params, read: Prefilled, owner: np.ndarray, responses: Sequence[np.ndarray]) -> Scored:
        """Computes the likelihood of each response after the prompt in row `owner`.

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
            found = self._score(params, read, owners, tokens, counts)
            scores.append([to_host(value)[: len(part)] for value in found])
        return Scored(*(np.concatenate(values) for values in zip(*scores, strict=True)))

    def _width(self, longest: int) -> int:
        """Padded length of responses: powers of four, so that few shapes are compiled and one word costs little."""
        return min(self.room, next(4**k for k in range(16) if 4**k >= longest))

    def generate(self, params: Params, read: Prefilled, ended: Ended | None = None) -> list[np.ndarray]:
        """Generates each prompt's greedy continuation, up to `max_new_tokens`, without the stop token.

        Args:
            params: The model's.
            read: The prompts.
            ended: Called after every `CHECK_EVERY` tokens, for ends that are no single token; a response keeps all tokens that
                it was called with.

        Raises:
            NotFiniteError: The logits of a token are not finite; its index is the row's.
        """
        state, done = self._begin(params, read), np.zeros(len(read.lengths), bool)
        for count in (*range(CHECK_EVERY, self._new, CHECK_EVERY), self._new) if ended else (self._new,):
            state = self._write(params, read.lengths, state, done, np.int32(count))
            tokens, lengths, finished = map(to_host, (state.tokens, state.lengths, state.finished))
            responses = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
            for row, response in enumerate(responses):
                if NO_TOKEN in response:
                    raise NotFiniteError(
                        row, f"the logit of token {response.tolist().index(NO_TOKEN) + 1} of its response"
                    )
            done = finished | ended(responses) if ended else finished
            if done.all():
                break
        return responses


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
) -> tuple[Float[Array, " b"], Bool[Array, " b"]]:
    """`Scored` of tokens[: counts] after the prompt of owner; the last token is predicted, never read."""
    before = read.last[owner][:, None]
    if tokens.shape[1] > 1:
        cache = jax.tree.map(lambda leaf: jnp.take(leaf, owner, axis=1), read.cache)
        slots = read.lengths[owner][:, None] + jnp.arange(tokens.shape[1] - 1, dtype=jnp.int32)
        hidden, _ = model.decode(params, tokens[:, :-1], slots, cache)
        before = jnp.concatenate([before, hidden], axis=1)
    logits, counted = model.unembed(params, before), jnp.arange(tokens.shape[1]) < counts[:, None]
    greedy = (jnp.argmax(logits, axis=-1) == tokens) | ~counted
    return -(token_nll(logits, tokens) * counted).sum(axis=1), greedy.all(axis=1)


class _Writing(NamedTuple):
    """State of greedy decoding."""

    written: Int32[Array, ""]
    tokens: Int32[jax.Array, "b n"]
    lengths: Int32[Array, " b"]
    finished: Bool[Array, " b"]
    following: Int32[Array, " b"]
    cache: Cache


def _begin(model: Model, room: int, params: Params, read: Prefilled) -> _Writing:
    """State before the first token; rows of padding are finished."""
    rows = read.lengths.shape[0]
    return _Writing(
        jnp.int32(0),
        jnp.zeros((rows, room), jnp.int32),
        jnp.zeros(rows, jnp.int32),
        read.lengths == 0,
        _choose(model, params, read.last),
        read.cache,
    )


def _write(
    model: Model,
    stop: tuple[int, ...],
    params: Params,
    prompts: Int32[Array, " b"],
    state: _Writing,
    done: Bool[Array, " b"],
    until: Int32[Array, ""],
) -> _Writing:
    """Writes until there are `until` tokens or every row is finished; `prompts` are lengths, and rows in `done` get no more."""

    def going(state: _Writing) -> Array:
        return (state.written < until) & ~state.finished.all()

    def write(state: _Writing) -> _Writing:
        token = state.following
        finished = state.finished | jnp.isin(token, jnp.array(stop, jnp.int32))
        tokens = state.tokens.at[:, state.written].set(token)
        slots = (prompts + state.written)[:, None]
        hidden, cache = model.decode(params, token[:, None], slots, state.cache)
        following = _choose(model, params, hidden[:, 0])
        return _Writing(state.written + 1, tokens, state.lengths + ~finished, finished, following, cache)

    return jax.lax.while_loop(going, write, state._replace(finished=state.finished | done))


def _choose(model: Model, params: Params, hidden: Float[Array, "b d"]) -> Int32[Array, " b"]:
    """The likeliest next tokens; `NO_TOKEN` where the largest logit is NaN or infinite."""
    logits = model.unembed(params, hidden)
    finite = jnp.isfinite(logits.max(axis=-1))
    return jnp.where(finite, jnp.argmax(logits, axis=-1), NO_TOKEN).astype(jnp.int32)
