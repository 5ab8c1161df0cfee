"""Two configs: what changes the computation is found, what does not is passed over, spellings of one thing are equal."""

import json

import pytest
from transformers import CONFIG_MAPPING

from merit_jax.models.processing import config_differences as differences
from merit_jax.models.processing.config_defaults import with_defaults
from merit_jax.models.processing.config_differences import AS_WRITTEN, config_differences, setting_of
from tests.support import tiny_vision

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
QWEN2 = {**LLAMA, "model_type": "qwen2", "use_sliding_window": False, "max_window_layers": 24, "sliding_window": 32768}
NOBODY = {"model_type": "nobody's", "eps": 1e-5, "inner": {"heads": 4}}


@pytest.mark.parametrize(
    ("config", "changes", "keys"),
    [
        (LLAMA, {"model_type": "mistral"}, {"model_type"}),
        (LLAMA, {"num_attention_heads": 8}, {"num_attention_heads", "head_dim", "num_key_value_heads"}),
        (LLAMA, {"rms_norm_eps": 1e-5}, {"rms_norm_eps"}),
        (LLAMA, {"hidden_act": "gelu"}, {"hidden_act"}),
        (LLAMA, {"rope_theta": 5e5}, {"rope_parameters.rope_theta"}),
        (LLAMA, {"tie_word_embeddings": True}, {"tie_word_embeddings"}),
        (LLAMA, {"attention_bias": True}, {"attention_bias"}),
        (LLAMA, {"my_own_key": 1}, {"my_own_key"}),
        (
            {**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            {"max_position_embeddings": 99},
            {"max_position_embeddings"},
        ),
        (
            QWEN2,
            {"use_sliding_window": True, "max_window_layers": 1},
            {"use_sliding_window", "sliding_window", "layer_types"},
        ),
        (NOBODY, {"eps": 1e-6, "inner": {"heads": 2}}, {"eps", "inner.heads"}),
    ],
)
def test_what_changes_the_computation_is_found(config, changes, keys):
    assert set(config_differences(config, {**config, **changes})) == keys


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (
            LLAMA,
            {"architectures": ["X"], "torch_dtype": "float16", "transformers_version": "4.1", "_name_or_path": "x"},
        ),
        (LLAMA, {"use_cache": False, "eos_token_id": [2, 7], "temperature": 0.5, "attention_dropout": 0.1}),
        (LLAMA, {"max_position_embeddings": 99, "pretraining_tp": 2, "unsloth_fixed": True}),
        (LLAMA, {"rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000, "num_key_value_heads": 4}),
        (LLAMA, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
        (QWEN2, {"max_window_layers": 21, "sliding_window": 131072}),
        (NOBODY, {"_name_or_path": "x", "inner": {"heads": 4, "hidden_dropout": 0.1}}),
    ],
)
def test_what_does_not_is_passed_over(config, changes):
    assert config_differences(config, {**config, **changes}) == {}


def test_the_keys_of_a_decoder_may_be_at_the_top_or_in_text_config(tmp_path):
    old = json.loads((tiny_vision.folder(tmp_path / "qwen") / "config.json").read_text())
    new = CONFIG_MAPPING["qwen2_5_vl"].from_dict(old).to_dict()
    assert "text_config" in new
    assert config_differences(old, new) == {}
    new["text_config"]["rms_norm_eps"] = 0.1
    assert set(config_differences(old, new)) == {"text_config.rms_norm_eps"}


def test_a_config_that_transformers_cannot_read_is_compared_as_it_is():
    assert config_differences({**LLAMA, "hidden_size": "x"}, LLAMA) == {"hidden_size": ("x", 64)}


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_labels"])
def test_a_huge_number_of_layers_or_labels_is_not_written_out(key):
    expected = {} if key == "num_labels" else {key: (2**40, QWEN2.get(key))}
    assert config_differences({**QWEN2, key: 2**40}, QWEN2) == expected


def test_keys_inside_a_neutral_one_make_no_difference():
    further = {"auto_map": {"AutoModel": "x.Y"}, "task_specific_params": {"sum": {"length": 1}}, "id2label": {"0": "a"}}
    plain = {"model_type": "llama"}
    assert config_differences(plain, plain | further) == {}


@pytest.mark.parametrize("kind", sorted(AS_WRITTEN))
@pytest.mark.filterwarnings("ignore")
def test_a_decoders_setting_is_as_written_with_all_defaults_too(kind):
    for key, value in (("tie_word_embeddings", True), ("tie_word_embeddings", False), ("vocab_size", 200_777)):
        config = {"model_type": kind, key: value}
        assert setting_of(config, key) == with_defaults(config)[key] == value


def test_a_setting_that_is_not_written_is_transformers(monkeypatch):
    assert setting_of(LLAMA, "tie_word_embeddings") is False
    assert setting_of({**LLAMA, "model_type": "gemma"}, "tie_word_embeddings") is True
    assert setting_of({"model_type": "t5", "tie_word_embeddings": False}, "tie_word_embeddings") is True
    nested = {"model_type": "llava", "text_config": {**LLAMA, "vocab_size": 320}}
    assert setting_of(nested, "vocab_size") == 320
    monkeypatch.setattr(differences, "with_defaults", None)
    assert setting_of({**NOBODY, "text_config": {"vocab_size": 320}}, "vocab_size") == 320
    assert setting_of(NOBODY, "vocab_size") is None


def test_configs_that_differ_in_labels_alone_are_equal_without_transformers(monkeypatch):
    monkeypatch.setattr(differences, "with_defaults", None)
    monkeypatch.setattr(differences, "_generation_keys", None)
    assert config_differences({**LLAMA, "torch_dtype": "float16"}, {**LLAMA, "_name_or_path": "x"}) == {}
    with pytest.raises(TypeError):
        config_differences(LLAMA, {**LLAMA, "attention_bias": True})
