"""Conversations whose scores are not finite are refused by name."""

import jax
import numpy as np
import pytest

from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Record
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.conversations import likelihoods, responses
from merit_jax.evaluation.decoding import Inference
from merit_jax.models import load_pretrained
from merit_jax.models.processing.tokenizer import load_tokenizer
from tests.support import world


def test_scores_that_are_not_finite_name_the_record(tmp_path, compiled):
    folder = world.checkpoint(tmp_path / "theta0", layers=1)
    (model, params), tokenizer = load_pretrained(folder), load_tokenizer(folder)
    broken, layout = jax.tree.map(lambda leaf: leaf * np.nan, params), BatchShapes((96,), 2)
    messages = ({"role": "user", "content": "say ab"}, {"role": "assistant", "content": "ab"})
    records = [Record(messages, None, "data.jsonl:7")]
    with pytest.raises(ValueError, match=r"^data\.jsonl:7: the loss of its response is NaN or infinite"):
        likelihoods(jax.jit(next_token_loss(model)), broken, tokenizer, records, layout, 96)
    with pytest.raises(ValueError, match=r"^data\.jsonl:7: the logit of token 1 of its response is NaN or infinite"):
        responses(Inference(model, max_new_tokens=4, stop=(2,)), broken, tokenizer, records, layout)
