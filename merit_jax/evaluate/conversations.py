"""Scores whole conversations, one by one: the log-likelihood of what the assistant says, and what the model would say."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from merit_jax.data.batching import bucketed_batches
from merit_jax.data.chat import encode, encode_prompt
from merit_jax.evaluate.inference import Inference
from merit_jax.evaluate.scores import completions
from merit_jax.sharding import to_host
from merit_jax.types import Batch, Example, LossFn, Params, Record


class Likelihood(NamedTuple):
    """How likely the assistant's tokens of one conversation are.

    Attributes:
        log_likelihood: Summed over the tokens, in nats.
        tokens: How many they are.
    """

    log_likelihood: float
    tokens: int


class Layout(NamedTuple):
    """The shapes that conversations are read in.

    Attributes:
        buckets: Padded lengths in tokens.
        batch_size: Conversations per forward pass.
        place: Puts a host batch on the devices.
    """

    buckets: tuple[int, ...]
    batch_size: int
    place: Callable[[Batch], Batch]


def likelihoods(
    loss_fn: LossFn, params: Params, tokenizer: Any, records: Sequence[Record], layout: Layout, max_length: int
) -> list[Likelihood]:
    """The likelihood of every record, in order; `loss_fn` is compiled by the caller.

    Raises:
        ValueError: A conversation has more than `max_length` tokens.
    """
    examples = [_whole(tokenizer, record, max_length) for record in records]
    scores = [Likelihood(0.0, 0)] * len(records)
    for indices, batch in bucketed_batches(examples, buckets=layout.buckets, batch_size=layout.batch_size):
        nll, tokens = map(to_host, loss_fn(params, layout.place(batch)))
        for row, index in enumerate(indices):
            if index >= 0:
                scores[index] = Likelihood(-float(nll[row]), int(tokens[row]))
    return scores


def responses(
    inference: Inference, params: Params, tokenizer: Any, records: Sequence[Record], layout: Layout
) -> list[str]:
    """The greedy response to every record's prompt, in order."""
    prompts = [encode_prompt(tokenizer, record.messages[:-1], where=record.where) for record in records]
    written = completions(inference, params, prompts, layout.buckets, layout.batch_size)
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]


def _whole(tokenizer: Any, record: Record, max_length: int) -> Example:
    example, cut = encode(tokenizer, record.messages, max_length, where=record.where)
    if cut:
        raise ValueError(f"{record.where}: longer than {max_length} tokens; raise --max_length")
    return example
