"""Tokens per second."""

import itertools

import numpy as np
import pytest

from merit_jax.core.types import Batch
from merit_jax.evaluation import throughput as module
from merit_jax.evaluation.throughput import Throughput, throughput
from tests.support import tiny


def prompts(*lengths):
    rows = tiny.rows(*lengths, width=6)
    return Batch(rows.tokens, rows.tokens, rows.segments.astype(np.float32), rows.positions, rows.segments)


def test_tokens_are_divided_by_the_median_time_of_runs_after_the_first(monkeypatch):
    durations = itertools.cycle([0.5, 8.0, 2.0])
    ticks = itertools.chain.from_iterable((0.0, next(durations)) for _ in itertools.count())
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
    model = tiny.model()
    found = throughput(model, tiny.params(model), prompts(5, 3, 0), new_tokens=4, repeats=3)
    assert found == Throughput(read=8 / 2, written=2 * 4 / 2)


@pytest.mark.parametrize("name", ["new_tokens", "repeats"])
def test_a_number_below_one_is_refused(name):
    model = tiny.model()
    with pytest.raises(ValueError, match=f"{name} = 0: expected 1 or more"):
        throughput(model, tiny.params(model), prompts(5), **{name: 0})
