"""Whatever the template: the ids of a prompt and its response are the conversation's, and the response is what is trained."""

import itertools

import numpy as np
import pytest

from merit_jax.data.chat_template import encode, encode_prompt, encode_response
from tests.support.templates import CONTINUED, EMPTY_THOUGHT, LLAVA, QWEN3
from tests.support.tiny_tokenizer import metaspace_tokenizer, tiny_tokenizer

USER, SYSTEM = {"role": "user", "content": "one two"}, {"role": "system", "content": "Sys."}
EARLIER = {"role": "assistant", "content": "then  ", "reasoning_content": "so"}
PROMPTS = {
    "a question": (USER,),
    "with a system message": (SYSTEM, USER),
    "a second question": (USER, EARLIER, USER),
    "a third question": (SYSTEM, USER, EARLIER, USER, {**EARLIER, "content": "\nno"}, USER),
    "an untrained turn": (USER, {**EARLIER, "train": False}, USER),
}
RESPONSES = (" four", "\n\nfour\n", "four ", "a</think>b", "é 🏳️\u200d🌈")
CASES = list(itertools.product(CONTINUED, PROMPTS))


def response_of(tokenizer, example):
    """The text of the last trained stretch."""
    start = int(np.flatnonzero(~example.supervised)[-1]) + 1
    return tokenizer.decode(example.tokens[start:])


@pytest.mark.parametrize(("template", "prompt"), CASES, ids=[" - ".join(case) for case in CASES])
@pytest.mark.parametrize("make", [tiny_tokenizer, metaspace_tokenizer])
def test_prompt_and_response_are_the_conversation(make, template, prompt):
    tokenizer, messages = make(CONTINUED[template]), PROMPTS[prompt]
    for response in RESPONSES:
        example, truncated = encode(tokenizer, (*messages, {"role": "assistant", "content": response}), 500)
        before = encode_prompt(tokenizer, messages)
        after = encode_response(tokenizer, messages, response)
        np.testing.assert_array_equal(np.concatenate([before, after]), example.tokens)
        assert not truncated
        assert not example.supervised[: len(before)].all()
        if template != "empty thought":
            assert example.supervised[len(before) :].all()


def test_a_block_behind_white_space_starts_at_the_generation_prompt():
    tokenizer = tiny_tokenizer(LLAVA)
    example, _ = encode(tokenizer, (USER, {"role": "assistant", "content": "four"}), 200)
    assert tokenizer.decode(example.tokens) == "USER: one two ASSISTANT: four "
    assert response_of(tokenizer, example) == " four "
    assert encode_prompt(tokenizer, (USER,)).tolist() == tokenizer("USER: one two ASSISTANT:")["input_ids"]


def test_words_before_the_block_are_context():
    tokenizer = tiny_tokenizer(EMPTY_THOUGHT)
    example, _ = encode(tokenizer, (USER, {"role": "assistant", "content": "four"}), 200)
    assert response_of(tokenizer, example) == "four<|im_end|>"
    answer = encode_response(tokenizer, (USER,), "four")
    assert tokenizer.decode(answer) == "<think>\n\n</think>\n\nfour<|im_end|>"


def test_the_reasoning_of_the_last_turn_is_trained():
    tokenizer = tiny_tokenizer(QWEN3)
    messages = (USER, EARLIER, USER, {"role": "assistant", "content": "four", "reasoning_content": "2 + 2"})
    example, _ = encode(tokenizer, messages, 200)
    assert response_of(tokenizer, example) == "2 + 2\n</think>\n\nfour<|im_end|>"
