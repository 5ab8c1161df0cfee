"""Routers of mixtures of experts: found under every name, and nothing else is taken for one."""

import logging

import pytest

from merit_jax.merging.exclude import merged_paths

ROUTERS = (
    "layers/mlp/router/kernel",
    "decoder/layers/mlp/router/kernel",
    "model.layers.0.mlp.gate.weight",
    "model.layers.11.block_sparse_moe.gate.weight",
    "model.layers.0.mlp.router.bias",
)
OTHERS = (
    "layers/mlp/gate/kernel",
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.0.mlp.experts.3.gate_proj.weight",
    "model.layers.0.self_attn.q_proj.weight",
)


@pytest.mark.parametrize("path", ROUTERS)
def test_averaged_routers_are_warned_of(path, caplog):
    with caplog.at_level(logging.WARNING, "merit_jax"):
        assert merged_paths([path, *OTHERS], [], 2) == [path, *OTHERS]
    (message,) = caplog.messages
    assert path in message
    pattern = message.rpartition(" to ")[2].strip("'").replace("\\\\", "\\")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "merit_jax"):
        assert merged_paths([path, *OTHERS], [pattern], 2) == list(OTHERS)
    assert not caplog.messages


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"--exclude: '\(' is no regular expression"):
        merged_paths(OTHERS, ["("], 2, "--exclude")


def test_without_routers_or_with_one_model_there_is_no_warning(caplog):
    with caplog.at_level(logging.WARNING, "merit_jax"):
        merged_paths(OTHERS, [], 2)
        merged_paths(ROUTERS, [], 1)
    assert not caplog.messages
