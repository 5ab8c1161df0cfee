"""Scores a model on records: loss, multiple choice, greedy responses."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core.loss import chunked_sum, token_nll
from merit_jax.core.sharding import to_host
from merit_jax.core.types import Array, Batch, Example, Model, Params
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.decoding import Ended, Inference, Scored
from merit_jax.evaluation.not_finite import NotFiniteError, first_not_finite
from merit_jax.evaluation.prompts import Question


class Scores(NamedTuple):
    """Scores of one model on one set of records.

    Attributes:
        loss: Mean negative log-likelihood per supervised token, in nats; None if it was not computed.
        tokens: Supervised tokens the loss is a mean of.
        accuracy: Mean score of the records.
        records: Records behind the accuracy.
        metric: "options" (best option by mean log-likelihood per token), "exact_match" or "facts" (share of the facts that the
            response mentions), both by greedy decoding; several joined by "+". "agreement": share of the reference's tokens,
            its end included, that are the likeliest after those before them.
        correct: The score of each record, in 0..1, in the order of the records.
    """

    loss: float | None
    tokens: int
    accuracy: float
    records: int
    metric: str
    correct: tuple[float, ...]


def likelihoods(
    loss_fn: Callable[[Params, Batch], tuple], params: Params, examples: Sequence[Example], layout: BatchShapes
) -> Float[np.ndarray, "n 2"]:
    """Computes (summed negative log-likelihood in nats, supervised tokens) of each example.

    Args:
        loss_fn: A `LossFn`, compiled by the caller.
        params: The model's.
        examples: Examples of any length up to the largest bucket.
        layout: Shapes of batches.

    Raises:
        NotFiniteError: The loss of an example is NaN or infinite.

    Examples:
        >>> def nll(params, batch):
        ...     tokens = jnp.asarray(batch.weights).sum(axis=1)
        ...     return params["nats"] * tokens, tokens
        >>> example = Example(np.arange(3, dtype=np.int32), np.array([False, True, True]))
        >>> likelihoods(nll, {"nats": 0.5}, [example, example], BatchShapes((4,), batch_size=2)).tolist()
        [[1.0, 2.0], [1.0, 2.0]]
    """
    found = np.zeros((len(examples), 2))
    for indices, batch in layout.batches(examples):
        rows = np.stack([to_host(part) for part in loss_fn(params, batch)], axis=1)
        found[indices[indices >= 0]] = rows[indices >= 0]
    if (bad := first_not_finite(found[:, 0])) is not None:
        raise NotFiniteError(bad, "the loss of its response")
    return found


def continuation_scores(model: Model, chunk: int = 64) -> Callable[[Params, Batch], Float[Array, "2 b"]]:
    """Returns a function like a loss: (summed negative log-likelihood in nats, tokens that were not the likeliest) of each row.

    Args:
        model: Gives hidden states and logits.
        chunk: Tokens of each row whose logits exist at one time.
    """

    def scores(params: Params, batch: Batch) -> Float[Array, "2 b"]:
        def measure(hidden: Array, targets: Array, weights: Array) -> Array:
            logits = model.unembed(params, hidden)
            misses = (jnp.argmax(logits, axis=-1) != targets).astype(jnp.float32)
            return (jnp.stack([token_nll(logits, targets), misses]) * weights).sum(axis=-1)

        return chunked_sum(measure, model.hidden(params, batch), batch.targets, batch.weights, chunk)

    return scores


def option_scores(
    inference: Inference,
    params: Params,
    prompts: Sequence[Example],
    options: Sequence[Sequence[np.ndarray]],
    layout: BatchShapes,
) -> Iterator[tuple[int, Scored]]:
    """Yields (index of a prompt, scores of its options), for every prompt; a prompt is read once for all its options.

    Raises:
        NotFiniteError: The log-likelihood of an option is NaN or infinite.
    """
    for indices, batch in layout.batches(prompts):
        read = inference.prefill(params, batch)
        pairs = [(row, option) for row, index in enumerate(indices) if index >= 0 for option in options[index]]
        owner = np.array([row for row, _ in pairs], np.int32)
        scored = inference.score(params, read, owner, [option for _, option in pairs])
        for row, index in enumerate(indices.tolist()):
            if index >= 0:
                found = Scored(*(values[owner == row] for values in scored))
                if (bad := first_not_finite(found.log_likelihood)) is not None:
                    raise NotFiniteError(index, f"the score of option {bad + 1}")
                yield index, found


def option_choices(
    inference: Inference, params: Params, questions: Sequence[Question], layout: BatchShapes
) -> list[int]:
    """Returns each question's option with the highest mean log-likelihood per token (the first of equals)."""
    choices, options = [0] * len(questions), [question.options for question in questions]
    for index, scored in option_scores(inference, params, [q.prompt for q in questions], options, layout):
        lengths = np.array([len(option) for option in options[index]])
        choices[index] = int(np.argmax(scored.log_likelihood / lengths))
    return choices


def completions(
    inference: Inference, params: Params, prompts: Sequence[Example], layout: BatchShapes, ended: Ended | None = None
) -> list[np.ndarray]:
    """Generates the greedy response to each prompt, as ids; `ended` as in `Inference.generate`.

    Raises:
        NotFiniteError: The logits of a response are NaN or infinite.
    """
    responses: list[np.ndarray] = [np.zeros(0, np.int32)] * len(prompts)
    for indices, batch in layout.batches(prompts):
        try:
            written = inference.generate(params, inference.prefill(params, batch), ended)
        except NotFiniteError as error:
            raise NotFiniteError(int(indices[error.index]), error.what) from None
        for index, response in zip(indices, written, strict=True):
            if index >= 0:
                responses[index] = response
    return responses
