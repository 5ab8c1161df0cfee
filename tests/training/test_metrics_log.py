"""A line of the log has the mean loss that its steps minimised, and the tokens that they were trained on."""

import json

import jax.numpy as jnp
import pytest
from etils import epath

from merit_jax.training.metrics_log import MetricsLog, read_metrics
from merit_jax.training.step import StepMetrics


def test_the_loss_is_divided_by_what_the_steps_average_over(tmp_path):
    leaves = {"w": jnp.zeros(2)}
    log = MetricsLog(epath.Path(tmp_path / "metrics.jsonl"), 0, 2, leaves)
    for index, (nll, count, tokens) in enumerate([(6.0, 3.0, 40.0), (2.0, 1.0, 2.0)]):
        metrics = StepMetrics(*(jnp.float32(value) for value in (nll, count, tokens, 1.5)))
        log.add(metrics)
        if log.due(index + 1):
            log.write(index + 1, leaves)
    (line,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (line["step"], line["loss"], line["tokens"]) == (2, 2.0, 42)


def test_a_torn_last_line_is_left_out_and_another_is_named(tmp_path):
    path = epath.Path(tmp_path / "metrics.jsonl")
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl has a damaged line"):
        read_metrics(path)
    assert [line["step"] for line in read_metrics(path, tolerant=True)] == [1, 3]
