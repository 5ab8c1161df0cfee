"""The shipped mixture through the tokenizer and chat template of a released model."""

from pathlib import Path

import numpy as np
import pytest

from merit_jax.data.chat_template import encode_prompt, encode_response
from merit_jax.data.mixture import load_mixture
from merit_jax.models.pretrained.shipped import smollm2_path
from merit_jax.models.processing.tokenizer import load_tokenizer

pytestmark = pytest.mark.smollm2
BIGBENCH = Path(__file__).parents[2] / "examples" / "bigbench"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(smollm2_path())


@pytest.fixture(scope="module")
def mixture(tokenizer):
    return load_mixture(f"{BIGBENCH}/*.train.jsonl", tokenizer, max_length=512, max_train=8, max_held_out=4, seed=0)


def test_the_repository_ships_sixteen_tasks_with_held_out_records(mixture):
    assert len(mixture) == 16
    assert all(len(dataset.train) == 8 and len(dataset.held_out) == 4 for dataset in mixture)


def test_supervised_text_is_the_target_and_its_end_of_turn(mixture, tokenizer):
    for dataset in mixture:
        for example in dataset.train:
            text = tokenizer.decode(example.tokens)
            response = tokenizer.decode(example.tokens[example.supervised])
            assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
            assert text.endswith(f"<|im_end|>\n<|im_start|>assistant\n{response}")
            assert response.endswith("<|im_end|>")
            assert response.count("<|im_end|>") == 1


def test_options_are_scored_after_the_ids_that_the_template_gives(mixture, tokenizer):
    for dataset in mixture:
        for record in dataset.held_out:
            ids = tokenizer.apply_chat_template(list(record.messages), return_dict=True)["input_ids"]
            prompt = encode_prompt(tokenizer, record.messages[:-1])
            answer = encode_response(tokenizer, record.messages[:-1], record.messages[-1]["content"])
            np.testing.assert_array_equal(np.concatenate([prompt, answer]), ids[: len(prompt) + len(answer)])
            assert tokenizer.decode(ids[len(prompt) + len(answer) :]) == "\n"
