"""An exam marks every record by its kind, and as it would alone."""

import jax
import numpy as np
import pytest

from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Record
from merit_jax.data.chat_template import encode, encode_prompt
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.conversations import responses
from merit_jax.evaluation.decoding import Inference
from merit_jax.evaluation.evaluator import Evaluator
from merit_jax.evaluation.prompts import stop_tokens
from merit_jax.models import load_pretrained
from merit_jax.models.processing.tokenizer import load_tokenizer
from tests.support import world

QUESTIONS = ["say ab", "say it again, and slowly", "why", "count: a b c d"]
NEW = 10
LAYOUT = BatchShapes((96,), 4)


@pytest.fixture(scope="module")
def examinee(tmp_path_factory, compiled):
    """A random model that says nothing but five letters."""
    folder = world.checkpoint(tmp_path_factory.mktemp("exam") / "theta0", layers=1)
    (model, params), tokenizer = load_pretrained(folder), load_tokenizer(folder)
    answers = [tokenizer.convert_tokens_to_ids(token) for token in "abcde"]
    embedding = np.zeros_like(params["embed"]["embedding"])
    embedding[answers] = 10 * np.asarray(params["embed"]["embedding"])[answers]
    return model, {**params, "embed": {"embedding": jax.numpy.asarray(embedding)}}, tokenizer


def record(question, answer, options=None, facts=None):
    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Record(messages, options, "test:1", facts)


def evaluate(examinee, suites, layout=LAYOUT, **options):
    model, params, tokenizer = examinee
    options = {"max_length": 96, "max_new_tokens": NEW, **options}
    return Evaluator(suites, model, next_token_loss(model), tokenizer, layout, **options).evaluate(params)


@pytest.fixture(scope="module")
def answers(examinee):
    """The model's greedy responses."""
    model, params, tokenizer = examinee
    inference = Inference(model, max_new_tokens=NEW, stop=stop_tokens(tokenizer))
    texts = responses(inference, params, tokenizer, [record(question, "x") for question in QUESTIONS], LAYOUT)
    assert all(set(text) <= set("abcde") for text in texts)
    assert len(set(texts)) > 1
    return texts


@pytest.fixture(scope="module")
def suites(answers):
    choice = ("abc", "a much longer answer", "e")
    return {
        "exact": [
            record(QUESTIONS[0], answers[0].upper()),
            record(QUESTIONS[1], answers[1] + " z"),
            record(QUESTIONS[2], answers[2]),
        ],
        "open": [
            record(QUESTIONS[1], "as you like", facts=(answers[1], "zebra")),
            record(QUESTIONS[3], "as you like", facts=("zebra", "letter", answers[3].upper())),
        ],
        "choice": [record(question, answer, options=choice) for question in QUESTIONS for answer in choice],
        "long": [record("say", "abcde" * 20)],
        "mixed": [
            record(QUESTIONS[0], answers[0]),
            record(QUESTIONS[0], "e", options=("d", "e")),
            record(QUESTIONS[1], "?"),
        ],
    }


@pytest.fixture(scope="module")
def scores(examinee, suites):
    return evaluate(examinee, suites)


def test_every_kind_of_record_has_its_own_metric(scores, suites):
    assert list(scores) == list(suites)
    assert scores["exact"].accuracy == pytest.approx(2 / 3)
    assert scores["open"].accuracy == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert scores["choice"].accuracy == pytest.approx(1 / 3)
    assert {name: (score.metric, score.records) for name, score in scores.items()} == {
        "exact": ("exact_match", 3),
        "open": ("facts", 2),
        "choice": ("options", 12),
        "long": ("exact_match", 1),
        "mixed": ("exact_match+options", 3),
    }


def test_records_score_together_as_each_does_alone(examinee, suites, scores):
    alone = {f"{name}/{i}": [record] for name, records in suites.items() for i, record in enumerate(records)}
    single = evaluate(examinee, alone, BatchShapes((96,), 1))
    for name, records in suites.items():
        mine = [single[f"{name}/{i}"] for i in range(len(records))]
        assert scores[name].accuracy == pytest.approx(np.mean([score.accuracy for score in mine]))
        assert scores[name].tokens == sum(score.tokens for score in mine)
        nll = sum(score.loss * score.tokens for score in mine)
        assert scores[name].loss == pytest.approx(nll / scores[name].tokens, rel=1e-4)


def test_every_record_has_its_own_score(scores, suites):
    assert scores["exact"].correct == (1.0, 0.0, 1.0)
    assert scores["open"].correct == (pytest.approx(1 / 2), pytest.approx(1 / 3))
    for name, score in scores.items():
        assert len(score.correct) == len(suites[name])
        assert score.accuracy == pytest.approx(np.mean(score.correct))


def test_some_suites_score_as_all_do(examinee, suites, scores):
    model, params, tokenizer = examinee
    options = {"max_length": 96, "max_new_tokens": NEW}
    evaluator = Evaluator(suites, model, next_token_loss(model), tokenizer, LAYOUT, **options)
    found = evaluator.evaluate(params, {"mixed", "open"})
    assert list(found) == ["open", "mixed"]
    for name, score in found.items():
        assert score._replace(loss=None) == scores[name]._replace(loss=None)
        assert score.loss == pytest.approx(scores[name].loss, rel=1e-5)


@pytest.fixture(scope="module")
def compared(examinee, suites):
    """The suites with two of them scored by agreement, without other losses."""
    return evaluate(examinee, suites, losses=False, agreement={"exact", "choice"})


def test_agreement_is_the_share_of_the_references_tokens_that_are_the_likeliest(examinee, suites, compared, scores):
    model, params, tokenizer = examinee
    for name in ("exact", "choice"):
        shares, nll, tokens = [], 0.0, 0
        for one in suites[name]:
            example, _ = encode(tokenizer, one.messages, 96)
            logits = np.asarray(model.unembed(params, model.hidden(params, world.row(example.tokens.tolist()))))[0]
            places = np.flatnonzero(example.supervised)
            targets, before = example.tokens[places], logits[places - 1].astype(np.float64)
            shares.append(np.mean(before.argmax(axis=1) == targets))
            nll += (np.log(np.exp(before).sum(axis=1)) - before[np.arange(len(places)), targets]).sum()
            tokens += len(places)
        assert compared[name].correct == pytest.approx(shares)
        assert compared[name].loss == pytest.approx(nll / tokens, rel=1e-4)
        assert (compared[name].metric, compared[name].tokens) == ("agreement", scores[name].tokens)
    assert 0 < compared["exact"].accuracy < 1


def test_other_suites_score_as_without_agreement(compared, scores):
    for name in ("open", "long", "mixed"):
        assert compared[name] == scores[name]._replace(loss=None, tokens=0)


@pytest.mark.parametrize(
    ("suite", "losses", "said"),
    [
        (
            "choice",
            False,
            r"choice, test:1: the score of option 1 is NaN or infinite: the model's numbers overflow; train",
        ),
        ("exact", False, r"exact, test:1: the logit of token 1 of its response is NaN or infinite"),
        ("exact", True, r"exact, test:1: the loss of its response is NaN or infinite"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused_by_suite_and_record(examinee, suites, suite, losses, said, value):
    model, params, tokenizer = examinee
    broken = jax.tree.map(lambda leaf: leaf * value, params)
    with pytest.raises(ValueError, match=said):
        evaluate((model, broken, tokenizer), {suite: suites[suite]}, losses=losses)


def test_losses_are_computed_only_where_they_are_wanted(examinee, suites, scores):
    without = evaluate(examinee, suites, losses=False)
    assert {(score.loss, score.tokens) for score in without.values()} == {(None, 0)}
    assert {n: s.accuracy for n, s in without.items()} == {n: s.accuracy for n, s in scores.items()}


def test_the_loss_is_of_what_is_left_of_a_long_conversation(examinee, suites, scores):
    prompt = len(encode_prompt(examinee[2], suites["long"][0].messages[:-1]))
    assert scores["long"].tokens == 96 - prompt
