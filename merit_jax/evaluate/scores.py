"""How well a model does on records: loss, multiple choice, greedy responses."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from merit_jax.evaluate.inference import Inference
from merit_jax.evaluate.layout import Layout
from merit_jax.evaluate.questions import Question
from merit_jax.sharding import to_host
from merit_jax.types import Batch, Example, Params


class Scores(NamedTuple):
    """Scores of one model on one set of records.

    Attributes:
        loss: Mean negative log-likelihood per supervised token, in nats; None if it was not asked for.
        tokens: Supervised tokens the loss is a mean of.
        accuracy: Mean over the records of how right they were answered, in 0..1.
        records: Records behind the accuracy.
        metric: "options" (best option by mean log-likelihood per token), "exact_match" or "facts" (share of the facts that the
            response mentions), both by greedy decoding; several joined by "+".
    """

    loss: float | None
    tokens: int
    accuracy: float
    records: int
    metric: str


def likelihoods(
    loss_fn: Callable[[Params, Batch], tuple], params: Params, examples: Sequence[Example], layout: Layout
) -> Float[np.ndarray, "n 2"]:
    """(summed negative log-likelihood in nats, supervised tokens) of each example; `loss_fn` is compiled by the caller."""
    found = np.zeros((len(examples), 2))
    for indices, batch in layout.batches(examples):
        rows = np.stack([to_host(part) for part in loss_fn(params, batch)], axis=1)
        found[indices[indices >= 0]] = rows[indices >= 0]
    return found


def option_choices(inference: Inference, params: Params, questions: Sequence[Question], layout: Layout) -> list[int]:
    """For each question the option with the highest mean log-likelihood per token (the first of equals)."""
    choices = [0] * len(questions)
    for indices, batch in layout.batches([question.prompt for question in questions]):
        read = inference.prefill(params, batch)
        pairs = [(row, option) for row, q in enumerate(indices) if q >= 0 for option in questions[q].options]
        owner = np.array([row for row, _ in pairs], np.int32)
        scores = inference.score(params, read, owner, [option for _, option in pairs])
        means = scores / np.array([len(option) for _, option in pairs])
        for row, question in enumerate(indices):
            if question >= 0:
                choices[question] = int(np.argmax(means[owner == row]))
    return choices


def completions(inference: Inference, params: Params, prompts: Sequence[Example], layout: Layout) -> list[np.ndarray]:
    """The greedy response to each prompt, as ids."""
    responses: list[np.ndarray] = [np.zeros(0, np.int32)] * len(prompts)
    for indices, batch in layout.batches(prompts):
        written = inference.generate(params, inference.prefill(params, batch))
        for index, response in zip(indices, written, strict=True):
            if index >= 0:
                responses[index] = response
    return responses
