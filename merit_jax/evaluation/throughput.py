"""Measures the speed of a model on the present devices."""

import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import jax
import numpy as np

from merit_jax.core.types import Batch, Model, Params
from merit_jax.evaluation.decoding import Inference


class Throughput(NamedTuple):
    """The speed of a model.

    Attributes:
        read: Tokens of the batch whose final hidden states are computed, per second.
        written: Tokens that are generated greedily, per second; those of all rows together.
    """

    read: float
    written: float


def throughput(model: Model, params: Params, batch: Batch, *, new_tokens: int = 32, repeats: int = 5) -> Throughput:
    """Times forward passes, and greedy decoding after prompts that have been read, each by the median of several runs.

    A first run, which compiles, is not counted. The logits of the batch are not part of a forward pass.

    Args:
        model: The model.
        params: Its params.
        batch: Right-padded prompts, one example to a row.
        new_tokens: Tokens to generate after each prompt, ends of responses among them.
        repeats: Runs that are timed.

    Raises:
        ValueError: A number is below 1.
    """
    for name, number in {"new_tokens": new_tokens, "repeats": repeats}.items():
        if number < 1:
            raise ValueError(f"{name} = {number}: expected 1 or more")
    forward, real = jax.jit(model.hidden), np.asarray(batch.segments) > 0
    inference = Inference(model, max_new_tokens=new_tokens, stop=())
    prompts = inference.prefill(params, batch)
    reading = _seconds(lambda: forward(params, batch), repeats)
    writing = _seconds(lambda: inference.generate(params, prompts), repeats)
    return Throughput(int(real.sum()) / reading, int(real.any(axis=1).sum()) * new_tokens / writing)


def _seconds(run: Callable[[], Any], repeats: int) -> float:
    """Returns the median duration of runs after the first."""
    jax.block_until_ready(run())
    found = []
    for _ in range(repeats):
        start = perf_counter()
        jax.block_until_ready(run())
        found.append(perf_counter() - start)
    return statistics.median(found)
