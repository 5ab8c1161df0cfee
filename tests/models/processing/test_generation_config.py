"""Texts of an exported model end where its turns end, in the settings that transformers reads."""

import json

import pytest
from transformers import GenerationConfig

from merit_jax.evaluation.prompts import stop_tokens
from merit_jax.models import export_hf, load_pretrained
from merit_jax.models.processing.generation_config import add_ends, read_generation
from tests.models.pretrained.test_export import reader
from tests.support import tiny
from tests.support.tiny_tokenizer import tiny_tokenizer

OWN = {"temperature": 0.7, "do_sample": True}


@pytest.mark.parametrize(
    ("config", "settings", "stop", "ends"),
    [
        ({"eos_token_id": 0}, None, (2,), [0, 2]),
        ({"eos_token_id": [0, 5]}, None, (2, 5), [0, 5, 2]),
        ({"eos_token_id": 0}, {**OWN, "eos_token_id": 0}, (2,), [0, 2]),
        ({"eos_token_id": 0}, {**OWN, "eos_token_id": [0, 2]}, (2,), [0, 2]),
        ({"eos_token_id": 2}, OWN, (2,), 2),
        ({"eos_token_id": None, "text_config": {"eos_token_id": 0}}, OWN, (2,), [0, 2]),
        ({}, None, (2,), 2),
    ],
)
def test_ends_are_added_to_those_that_the_settings_name(tmp_path, config, settings, stop, ends):
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 7, **config}))
    if settings is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    add_ends(tmp_path, stop)
    read = GenerationConfig.from_pretrained(tmp_path)
    assert read.eos_token_id == ends
    assert (read.temperature, read.bos_token_id) == ((0.7, None) if settings else (None, 7))


def test_settings_that_name_all_ends_are_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id":[0,  2]}')
    add_ends(tmp_path, (2,))
    assert (tmp_path / "generation_config.json").read_text() == '{"eos_token_id":[0,  2]}'


def test_a_tune_to_chatml_of_a_base_that_ends_texts_alone_ends_its_turns(tmp_path):
    base, tokenizer = tiny.folder(tmp_path / "base", eos_token_id=0), tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    assert stop_tokens(tokenizer) == (0, 2)
    export_hf(tmp_path / "out", reader(load_pretrained(base)[1]), base, stop=stop_tokens(tokenizer))
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [0, 2]
    assert read_generation(tmp_path / "out").stop == (0, 2)
    assert read_generation(base).stop == (0,)
