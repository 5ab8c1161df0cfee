"""Shared-prefix scoring and cached decoding give what plain forward passes give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Batch, Example
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.decoding import Inference
from merit_jax.evaluation.not_finite import NotFiniteError
from merit_jax.evaluation.prompts import Question, exact_match, fact_recall
from merit_jax.evaluation.scoring import completions, likelihoods, option_choices
from merit_jax.models import DecoderConfig, build

VOCAB, ROOM, STOP = 23, 6, 5
CONFIG = DecoderConfig("llama", VOCAB, hidden_size=16, layers=2, heads=4, kv_heads=2, head_dim=4, mlp_size=24)
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(6, VOCAB, n).astype(np.int32) for n in (3, 7, 4, 12, 1)]


def asked(prompt):
    """A prompt as an example whose last token is still to be written."""
    return Example(np.append(prompt, np.int32(0)), np.zeros(len(prompt) + 1, bool))


def read_all(inference, params, prompts, length, rows):
    ((indices, batch),) = BatchShapes((length,), rows).batches([asked(prompt) for prompt in prompts])
    assert indices.tolist() == [*range(len(prompts)), *[-1] * (rows - len(prompts))]
    return inference.prefill(params, batch)


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
    scores, _ = inference.score(params, read_all(inference, params, PROMPTS[:3], 16, 4), owner, responses)
    expected = [likelihood(params, PROMPTS[o], r) for o, r in zip(owner, responses, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_greedy_responses_are_those_of_uncached_decoding(model, params):
    inference = Inference(model, max_new_tokens=ROOM, stop=(STOP,))
    written = completions(inference, params, list(map(asked, PROMPTS)), BatchShapes((8, 16), 2))
    assert [list(row) for row in written] == [greedy(params, prompt) for prompt in PROMPTS]


def test_a_response_is_greedy_where_decoding_would_have_written_it(model, params):
    inference = Inference(model, max_new_tokens=ROOM, stop=(STOP,))
    likeliest = [np.array(greedy(params, prompt, stop=-1)[:2], np.int32) for prompt in PROMPTS[:2]]
    wrong = [(likeliest[0] + [0, 1]) % VOCAB, (likeliest[1] + [1, 0]) % VOCAB]
    responses = [*likeliest, likeliest[0][:1], *wrong]
    read = read_all(inference, params, PROMPTS[:2], 16, 2)
    scored = inference.score(params, read, np.array([0, 1, 0, 0, 1], np.int32), responses)
    assert scored.greedy.tolist() == [True, True, True, False, False]


def test_a_response_that_has_ended_by_what_it_says_grows_no_more(model, params, monkeypatch):
    monkeypatch.setattr("merit_jax.evaluation.decoding.CHECK_EVERY", 2)
    inference, asked_of = Inference(model, max_new_tokens=ROOM, stop=(-1,)), []

    def ended(responses):
        asked_of.append([len(response) for response in responses])
        return np.array([True, False, False])

    read = read_all(inference, params, PROMPTS[:2], 16, 3)
    written = inference.generate(params, read, ended)
    assert [list(row) for row in written[:2]] == [
        greedy(params, PROMPTS[0], stop=-1)[:2],
        greedy(params, PROMPTS[1], stop=-1),
    ]
    assert asked_of == [[2, 2, 0], [2, 4, 0], [2, 6, 0]]


def test_longer_options_do_not_lengthen_what_is_generated(model, params):
    inference = Inference(model, max_new_tokens=2, longest_option=ROOM, stop=(-1,))
    read = read_all(inference, params, PROMPTS[1:2], 16, 2)
    assert list(inference.generate(params, read)[0]) == greedy(params, PROMPTS[1], stop=-1)[:2]
    option = RNG.integers(6, VOCAB, ROOM).astype(np.int32)
    score, _ = inference.score(params, read, np.zeros(1, np.int32), [option])
    np.testing.assert_allclose(score, [likelihood(params, PROMPTS[1], option)], rtol=1e-4)


def test_a_response_ends_before_the_stop_token(model, params):
    endless = greedy(params, PROMPTS[1], stop=-1)
    last = endless[-1]
    inference = Inference(model, max_new_tokens=ROOM, stop=(last,))
    (written,) = completions(inference, params, [asked(PROMPTS[1])], BatchShapes((16,), 2))
    assert list(written) == endless[: endless.index(last)] != endless


def test_the_best_option_is_the_one_with_the_highest_mean_per_token(model, params):
    options = [tuple(RNG.integers(6, VOCAB, n).astype(np.int32) for n in (1, 4, 2)) for _ in PROMPTS]
    questions = [Question(asked(prompt), choice, 0) for prompt, choice in zip(PROMPTS, options, strict=True)]
    choices = option_choices(
        Inference(model, max_new_tokens=ROOM, stop=(STOP,)), params, questions, BatchShapes((8, 16), 2)
    )
    means = [
        [likelihood(params, prompt, o) / len(o) for o in q.options]
        for prompt, q in zip(PROMPTS, questions, strict=True)
    ]
    assert choices == [int(np.argmax(row)) for row in means]
    sums = [
        [mean * len(o) for mean, o in zip(row, q.options, strict=True)] for row, q in zip(means, questions, strict=True)
    ]
    assert choices != [int(np.argmax(row)) for row in sums], "sums must choose otherwise for this test to mean anything"


def test_scores_that_are_not_finite_name_their_example(model, params):
    token = next(token for token in PROMPTS[3] if sum(token in prompt for prompt in PROMPTS) == 1)
    embedding = params["embed"]["embedding"].at[token].set(jnp.nan)
    broken, layout = {**params, "embed": {"embedding": embedding}}, BatchShapes((16,), 2)
    inference, prompts = Inference(model, max_new_tokens=1, longest_option=1, stop=(STOP,)), list(map(asked, PROMPTS))
    option = (np.array([STOP], np.int32),)
    examples = [example._replace(supervised=np.arange(len(example.tokens)) > 0) for example in prompts]
    measures = {
        "the logit of token 1 of its response": lambda: completions(inference, broken, prompts, layout),
        "the score of option 1": lambda: option_choices(
            inference, broken, [Question(prompt, option, 0) for prompt in prompts], layout
        ),
        "the loss of its response": lambda: likelihoods(jax.jit(next_token_loss(model)), broken, examples, layout),
    }
    for what, measure in measures.items():
        with pytest.raises(NotFiniteError, match=f"^{what} is NaN or infinite: the model's numbers overflow") as error:
            measure()
        assert error.value.index == 3


def test_likelihoods_are_those_of_uncached_passes_over_supervised_tokens(model, params):
    masks = [np.array([False, True, True]), np.array([False, False, True]), np.array([False, True, False])]
    examples = [Example(prompt[:3], mask) for prompt, mask in zip(PROMPTS, masks, strict=False)]
    found = likelihoods(jax.jit(next_token_loss(model)), params, examples, BatchShapes((4, 8), 2))
    for (nll, tokens), example in zip(found, examples, strict=True):
        logs = log_probabilities(params, example.tokens[:-1])
        expected = -sum(logs[i, example.tokens[i + 1]] for i in range(2) if example.supervised[i + 1])
        assert (nll, tokens) == (pytest.approx(expected, rel=1e-5), example.supervised.sum())


def test_a_prompt_over_the_largest_bucket_is_refused():
    with pytest.raises(ValueError, match="has 12 tokens to predict, the largest bucket takes 8; add a larger bucket"):
        list(BatchShapes((4, 8), 2).batches(list(map(asked, PROMPTS))))


def test_a_response_longer_than_the_room_is_refused(model, params):
    inference = Inference(model, max_new_tokens=ROOM, stop=(STOP,))
    read = read_all(inference, params, PROMPTS[:1], 16, 2)
    with pytest.raises(ValueError, match="a response has 7 tokens, the room after a prompt is 6"):
        inference.score(params, read, np.zeros(1, np.int32), [np.zeros(7, np.int32)])


def test_exact_match_ignores_case_and_white_space_only():
    assert exact_match(" A  red\nBall ", "a red ball") == 1
    assert exact_match("a red ball .", "a red ball") == 0


def test_fact_recall_counts_whole_words_without_punctuation():
    text = "There is a red circle, and a blue B ."
    assert fact_recall(text, ("red circle", "letter", "blue b", "lue")) == 0.5
