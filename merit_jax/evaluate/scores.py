"""How well a model does on held-out records: loss, multiple choice, exact match."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from merit_jax.evaluate.inference import Inference, prompt_batches
from merit_jax.evaluate.questions import Question
from merit_jax.sharding import to_host
from merit_jax.types import Batch, Params


class DatasetScores(NamedTuple):
    """Scores of one model on one dataset's held-out records.

    Attributes:
        loss: Mean negative log-likelihood per supervised token, in nats.
        tokens: Supervised tokens the loss is a mean of.
        accuracy: Share of records answered right.
        records: Records behind the accuracy.
        metric: "options" (best option by mean log-likelihood per token) or "exact_match" (greedy decoding).
    """

    loss: float
    tokens: int
    accuracy: float
    records: int
    metric: str


def mean_loss(loss_fn: Callable[[Params, Batch], tuple], params: Params, batches: Iterable[Batch]) -> tuple[float, int]:
    """(nats per supervised token, supervised tokens) over one-example rows; `loss_fn` is compiled by the caller."""
    nll, tokens = 0.0, 0
    for batch in batches:
        batch_nll, batch_tokens = map(to_host, loss_fn(params, batch))
        nll += float(batch_nll.sum(dtype=np.float64))
        tokens += int(batch_tokens.sum(dtype=np.float64))
    return nll / max(tokens, 1), tokens


def option_choices(
    inference: Inference, params: Params, questions: Sequence[Question], buckets: Sequence[int], batch_size: int
) -> list[int]:
    """For each question the option with the highest mean log-likelihood per token (the first of equals)."""
    choices = [0] * len(questions)
    for prompts in prompt_batches([q.prompt for q in questions], buckets, batch_size):
        read = inference.prefill(params, prompts.batch)
        pairs = [(row, option) for row, q in enumerate(prompts.indices) if q >= 0 for option in questions[q].options]
        owner = np.array([row for row, _ in pairs], np.int32)
        scores = inference.score(params, read, owner, [option for _, option in pairs])
        means = scores / np.array([len(option) for _, option in pairs])
        for row, question in enumerate(prompts.indices):
            if question >= 0:
                choices[question] = int(np.argmax(means[owner == row]))
    return choices


def completions(
    inference: Inference, params: Params, prompts: Sequence[np.ndarray], buckets: Sequence[int], batch_size: int
) -> list[np.ndarray]:
    """The greedy response to each prompt, as ids."""
    responses: list[np.ndarray] = [np.zeros(0, np.int32)] * len(prompts)
    for group in prompt_batches(prompts, buckets, batch_size):
        written = inference.generate(params, inference.prefill(params, group.batch))
        for index, response in zip(group.indices, written, strict=True):
            if index >= 0:
                responses[index] = response
    return responses
