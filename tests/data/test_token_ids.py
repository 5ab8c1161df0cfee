"""A token that the embedding has no row for is named, with its row or dataset, before anything is trained."""

import copy
import json

import pytest

from merit_jax.data.chat_template import encode
from merit_jax.data.mixture import load_mixture
from merit_jax.models.pretrained.processor import load_processor
from tests.support.tiny import config
from tests.support.tiny_tokenizer import tiny_tokenizer

TALK = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "<new>"})


@pytest.fixture
def tokenizer():
    """A tokenizer with one token more than the model it came with."""
    found = copy.deepcopy(tiny_tokenizer())
    found.add_tokens(["<new>"])
    return found


@pytest.fixture
def mixture(tmp_path):
    rows = [{"inputs": f"q{n}", "targets": "yes" if n < 2 else "<new>"} for n in range(3)]
    (tmp_path / "a.train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"{tmp_path}/*.train.jsonl"


def test_a_row_with_a_token_past_the_embedding_is_refused_by_name(tokenizer, mixture):
    number = tokenizer.convert_tokens_to_ids("<new>")
    tokenizer.embedding_rows = number
    with pytest.raises(
        ValueError, match=rf"a\.train\.jsonl:3: token '<new>' has id {number}, .* embedding has {number} rows"
    ):
        load_mixture(mixture, tokenizer, max_length=99, seed=0)


def test_tokens_that_no_text_has_may_be_more_than_the_embedding_has_rows(tokenizer):
    tokenizer.embedding_rows = tokenizer.convert_tokens_to_ids("<new>")
    assert encode(tokenizer, (TALK[0], {**TALK[1], "content": "yes"}), 99)
    tokenizer.embedding_rows += 1
    assert encode(tokenizer, TALK, 99)
    tokenizer.embedding_rows = None
    assert encode(tokenizer, TALK, 99)


def test_a_cached_dataset_is_checked_against_the_model_of_today(tokenizer, mixture, tmp_path):
    options = {"max_length": 99, "seed": 0, "cache_dir": tmp_path / "cache"}
    load_mixture(mixture, tokenizer, **options)
    tokenizer.embedding_rows = tokenizer.convert_tokens_to_ids("<new>")
    with pytest.raises(ValueError, match="dataset 'a': token '<new>' has id"):
        load_mixture(mixture, tokenizer, **options)


def test_the_rows_are_those_of_the_config(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert load_processor(tmp_path).tokenizer.embedding_rows is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other", "vocab_size": 7}))
    assert load_processor(tmp_path).tokenizer.embedding_rows == 7
    assert load_processor(tmp_path, config(vocab_size=9)).tokenizer.embedding_rows == 9
