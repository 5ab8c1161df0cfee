"""Shared-prefix scoring and cached decoding give what plain forward passes give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.evaluate.inference import Inference, prompt_batches
from merit_jax.evaluate.questions import Question, normalised
from merit_jax.evaluate.scores import completions, mean_loss, option_choices
from merit_jax.loss import next_token_loss
from merit_jax.types import Batch
from models import DecoderConfig, build

VOCAB, ROOM, STOP = 23, 6, 5
CONFIG = DecoderConfig("llama", VOCAB, hidden_size=16, layers=2, heads=4, kv_heads=2, head_dim=4, mlp_size=24)
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(6, VOCAB, n).astype(np.int32) for n in (3, 7, 4, 12, 1)]


@pytest.fixture(scope="module")
def model():
    return build(CONFIG)


@pytest.fixture(scope="module")
def params(model):
    return jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0)))


@functools.cache
def forward():
    model = build(CONFIG)
    return jax.jit(lambda params, batch: jax.nn.log_softmax(model.unembed(params, model.hidden(params, batch))))


def log_probabilities(params, ids):
    """Log p(next | ids[: i + 1]) for every i, by one uncached pass."""
    tokens = np.zeros((1, 24), np.int32)
    tokens[0, : len(ids)] = ids
    segments = (np.arange(24) < len(ids)).astype(np.int32)[None]
    positions = np.arange(24, dtype=np.int32)[None] * segments
    batch = Batch(jnp.asarray(tokens), tokens, np.zeros((1, 24), np.float32), positions, segments)
    return np.asarray(forward()(params, batch))[0, : len(ids)]


def likelihood(params, prompt, response):
    logs = log_probabilities(params, np.concatenate([prompt, response]))
    return sum(logs[len(prompt) - 1 + i, token] for i, token in enumerate(response))


def greedy(params, prompt, stop=STOP):
    ids, written = list(prompt), []
    while len(written) < ROOM:
        token = int(np.argmax(log_probabilities(params, ids)[-1]))
        if token == stop:
            break
        written.append(token)
        ids.append(token)
    return written


def test_responses_score_as_in_a_pass_over_the_whole_conversation(model, params):
    inference = Inference(model, max_new_tokens=ROOM, stop=(STOP,))
    responses = [RNG.integers(6, VOCAB, n).astype(np.int32) for n in (1, 6, 3, 2, 4)]
    owner = np.array([1, 0, 1, 2, 1], np.int32)
    (group,) = prompt_batches(PROMPTS[:3], (16,), 4)
    scores = inference.score(params, inference.prefill(params, group.batch), owner, responses)
    expected = [likelihood(params, PROMPTS[o], r) for o, r in zip(owner, responses, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_greedy_responses_are_those_of_uncached_decoding(model, params):
    inference = Inference(model, max_new_tokens=ROOM, stop=(STOP,))
    written = completions(inference, params, PROMPTS, (8, 16), 2)
    assert [list(row) for row in written] == [greedy(params, prompt) for prompt in PROMPTS]


def test_longer_options_do_not_lengthen_what_is_generated(model, params):
    inference = Inference(model, max_new_tokens=2, longest_option=ROOM, stop=(-1,))
    (group,) = prompt_batches(PROMPTS[1:2], (16,), 2)
    read = inference.prefill(params, group.batch)
    assert list(inference.generate(params, read)[0]) == greedy(params, PROMPTS[1], stop=-1)[:2]
    option = RNG.integers(6, VOCAB, ROOM).astype(np.int32)
    score = inference.score(params, read, np.zeros(1, np.int32), [option])
    np.testing.assert_allclose(score, [likelihood(params, PROMPTS[1], option)], rtol=1e-4)


def test_a_response_ends_before_the_stop_token(model, params):
    endless = greedy(params, PROMPTS[1], stop=-1)
    last = endless[-1]
    (written,) = completions(Inference(model, max_new_tokens=ROOM, stop=(last,)), params, PROMPTS[1:2], (16,), 2)
    assert list(written) == endless[: endless.index(last)] != endless


def test_the_best_option_is_the_one_with_the_highest_mean_per_token(model, params):
    options = [tuple(RNG.integers(6, VOCAB, n).astype(np.int32) for n in (1, 4, 2)) for _ in PROMPTS]
    questions = [Question(prompt, choice, 0) for prompt, choice in zip(PROMPTS, options, strict=True)]
    choices = option_choices(Inference(model, max_new_tokens=ROOM, stop=(STOP,)), params, questions, (8, 16), 2)
    means = [[likelihood(params, q.prompt, o) / len(o) for o in q.options] for q in questions]
    assert choices == [int(np.argmax(row)) for row in means]
    sums = [
        [mean * len(o) for mean, o in zip(row, q.options, strict=True)] for row, q in zip(means, questions, strict=True)
    ]
    assert choices != [int(np.argmax(row)) for row in sums], "sums must choose otherwise for this test to mean anything"


def test_held_out_loss_is_a_mean_over_tokens(model, params):
    ids = np.stack([prompt[:3] for prompt in PROMPTS[:4]])
    weights = np.array([[1, 1], [0, 1], [0, 0], [1, 0]], np.float32)
    ones = np.ones((4, 2), np.int32)
    batch = Batch(ids[:, :-1], ids[:, 1:], weights, ones * [0, 1], ones)
    parts = [jax.tree.map(lambda x, i=i: x[i : i + 2].astype(x.dtype), batch) for i in (0, 2)]
    parts = [part._replace(positions=part.positions.astype(np.int32)) for part in parts]
    loss, tokens = mean_loss(jax.jit(next_token_loss(model)), params, parts)
    logs = [log_probabilities(params, row[:-1]) for row in ids]
    nll = -sum(weights[r, i] * logs[r][i, ids[r, i + 1]] for r in range(4) for i in range(2))
    assert (loss, tokens) == (pytest.approx(nll / 4, rel=1e-5), 4)


def test_prompts_come_in_the_smallest_bucket_that_fits_and_each_once():
    groups = list(prompt_batches(PROMPTS, (4, 8, 16), 2))
    assert [group.batch.tokens.shape for group in groups] == [(2, 4), (2, 4), (2, 8), (2, 16)]
    assert sorted(index for group in groups for index in group.indices if index >= 0) == list(range(5))


def test_what_does_not_fit_is_refused_with_the_key_to_change(model, params):
    with pytest.raises(ValueError, match=r"prompt of 12 tokens .* \(8\); extend evaluate.buckets"):
        list(prompt_batches(PROMPTS, (4, 8), 2))
    inference = Inference(model, max_new_tokens=2, stop=(STOP,))
    (group,) = prompt_batches(PROMPTS[:1], (16,), 2)
    read = inference.prefill(params, group.batch)
    with pytest.raises(ValueError, match=r"response has 3 tokens, the room after a prompt is 2; raise longest_option"):
        inference.score(params, read, np.zeros(1, np.int32), [np.zeros(3, np.int32)])


def test_exact_match_ignores_case_and_white_space_only():
    assert normalised("  The\n Answer ") == normalised("the answer")
    assert normalised("answer.") != normalised("answer")
