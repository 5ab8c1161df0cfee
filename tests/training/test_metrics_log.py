"""A line of the log has the mean loss that its steps minimised, and the tokens that they were trained on."""

import json

import jax.numpy as jnp
from etils import epath

from merit_jax.training.metrics_log import MetricsLog
from merit_jax.training.step import StepMetrics


def test_the_loss_is_divided_by_what_the_steps_average_over(tmp_path):
    leaves = {"w": jnp.zeros(2)}
    log = MetricsLog(epath.Path(tmp_path / "metrics.jsonl"), 0, 2, leaves)
    for index, (nll, count, tokens) in enumerate([(6.0, 3.0, 40.0), (2.0, 1.0, 2.0)]):
        metrics = StepMetrics(*(jnp.float32(value) for value in (nll, count, tokens, 1.5)))
        log.add(index, metrics, leaves, last=False)
    (line,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (line["step"], line["loss"], line["tokens"]) == (2, 2.0, 42)
