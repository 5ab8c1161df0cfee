"""Scores whole conversations, one by one: the log-likelihood of the assistant's tokens, and the model's own response."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from merit_jax.core.types import Example, LossFn, Params, Record
from merit_jax.data.chat_template import encode
from merit_jax.evaluation import scoring
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.decoding import Inference
from merit_jax.evaluation.not_finite import names
from merit_jax.evaluation.prompts import prompt


class Likelihood(NamedTuple):
    """The likelihood of the assistant's tokens in one conversation.

    Attributes:
        log_likelihood: Summed over the tokens, in nats.
        tokens: Their number.
    """

    log_likelihood: float
    tokens: int


def likelihoods(
    loss_fn: LossFn, params: Params, tokenizer: Any, records: Sequence[Record], layout: BatchShapes, max_length: int
) -> list[Likelihood]:
    """Computes the likelihood of every record, in order; `loss_fn` is compiled by the caller.

    Raises:
        ValueError: A conversation has more than `max_length` tokens, or its likelihood is NaN or infinite; it is named.
    """
    examples = [_whole(tokenizer, record, max_length) for record in records]
    with names(lambda index: records[index].where):
        found = scoring.likelihoods(loss_fn, params, examples, layout)
    return [Likelihood(-float(nll), int(tokens)) for nll, tokens in found]


def responses(
    inference: Inference, params: Params, tokenizer: Any, records: Sequence[Record], layout: BatchShapes
) -> list[str]:
    """Generates the greedy response to every record's prompt, in order.

    Raises:
        NotFiniteError: The logits of a response are NaN or infinite; its record is named.
    """
    prompts = [prompt(tokenizer, record) for record in records]
    with names(lambda index: records[index].where):
        written = scoring.completions(inference, params, prompts, layout)
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]


def _whole(tokenizer: Any, record: Record, max_length: int) -> Example:
    example, truncated = encode(tokenizer, record.messages, max_length, tools=record.tools, where=record.where)
    if truncated:
        raise ValueError(f"{record.where}: longer than {max_length} tokens; raise --max_length")
    return example
