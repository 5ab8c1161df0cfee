"""The loss mask covers what the assistant says and its end of turn, and nothing else."""

import numpy as np
import pytest

from merit_jax.data.chat_template import encode, encode_prompt, encode_response, encode_whole, tokenizer_digest
from merit_jax.data.template_source import OPEN
from tests.support.templates import DEEPSEEK, HELLO, LLAMA2, LLAVA, SMOLLM3, TWO_TURNS
from tests.support.tiny_tokenizer import CHATML, CHATML_GENERATION, metaspace_tokenizer, tiny_tokenizer

THINKING = CHATML.replace(
    "message['content'] + '<|im_end|>\n'",
    "('<think>' + message['content'] + '</think>' if loop.last else message['content']) + '<|im_end|>\n'",
)


def decoded(tokenizer, messages, max_length=200):
    """The text of an example, with every supervised stretch in [[ ]]."""
    example, _ = encode(tokenizer, messages, max_length)
    edges = np.flatnonzero(np.diff(np.r_[0, example.supervised, 0]))
    text, done = "", 0
    for start, end in edges.reshape(-1, 2):
        text += tokenizer.decode(example.tokens[done:start]) + "[[" + tokenizer.decode(example.tokens[start:end]) + "]]"
        done = end
    return text + tokenizer.decode(example.tokens[done:])


def test_chatml_supervises_the_response_and_its_end_of_turn():
    assert decoded(tiny_tokenizer(), HELLO) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n"
        "[[yes, there<|im_end|>]]"
    )


@pytest.mark.parametrize("template", [CHATML, CHATML_GENERATION])
def test_every_assistant_turn_is_supervised_and_the_newline_after_it_is_not(template):
    assert decoded(tiny_tokenizer(template), TWO_TURNS) == (
        "<|im_start|>system\nSys.<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n[[two<|im_end|>]]\n"
        "<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\n[[four<|im_end|>]]"
    )


def test_a_generation_block_ends_the_span_where_the_template_says():
    template = CHATML_GENERATION.replace("message['content'] + '<|im_end|>' }}", "message['content'] }}").replace(
        "{{- '\n' }}", "{{- '<|im_end|>\n' }}"
    )
    assert decoded(tiny_tokenizer(template), TWO_TURNS).endswith("<|im_start|>assistant\n[[four]]")


def test_a_generation_block_that_holds_the_header_starts_at_the_generation_prompt():
    assert decoded(tiny_tokenizer(SMOLLM3), HELLO).endswith("<|im_start|>assistant\n[[yes, there<|im_end|>\n]]")


def test_a_generation_block_frees_earlier_turns_from_prefix_rendering():
    generation = CHATML_GENERATION.replace(
        "message['content'] + '<|im_end|>' }}", "('T' if loop.last else '') + message['content'] + '<|im_end|>' }}"
    )
    text = decoded(tiny_tokenizer(generation), TWO_TURNS)
    assert "[[two<|im_end|>]]" in text
    assert text.endswith("[[Tfour<|im_end|>]]")


def test_a_generation_prompt_that_the_conversation_does_not_continue_is_refused():
    template = CHATML_GENERATION.replace(
        "add_generation_prompt %}{{- '<|im_start|>assistant\n' }}", "add_generation_prompt %}{{- '<|im_start|>bot\n' }}"
    )
    with pytest.raises(ValueError, match=r"here:3: the chat template does not render .*'bot.*'assistant"):
        encode(tiny_tokenizer(template), TWO_TURNS, 200, where="here:3")


def test_generation_blocks_agree_with_the_masks_of_transformers():
    tokenizer = tiny_tokenizer(CHATML_GENERATION)
    theirs = tokenizer.apply_chat_template(list(TWO_TURNS), return_assistant_tokens_mask=True, return_dict=True)
    example, _ = encode(tokenizer, TWO_TURNS, 200)
    assert theirs["input_ids"][: len(example.tokens)] == example.tokens.tolist()
    assert theirs["assistant_masks"][: len(example.tokens)] == example.supervised.astype(int).tolist()


def test_a_template_that_rewrites_the_past_is_refused():
    with pytest.raises(
        ValueError, match=r"here:3: the chat template does not render .*'<think>one.*the same way whether"
    ):
        encode(tiny_tokenizer(THINKING), TWO_TURNS, 200, where="here:3")


def test_a_prompt_has_the_ids_that_its_text_has():
    tokenizer = tiny_tokenizer()
    text = tokenizer.apply_chat_template(list(HELLO[:1]), tokenize=False, add_generation_prompt=True)
    assert encode_prompt(tokenizer, HELLO[:1]).tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_response_that_begins_with_a_newline_does_not_merge_with_the_prompt():
    tokenizer = tiny_tokenizer()
    whole = tokenizer("assistant\n\n\nfour")["input_ids"]
    assert "ĊĊ" in tokenizer.convert_ids_to_tokens(whole)
    prompt = encode_prompt(tokenizer, HELLO[:1])
    example, _ = encode(tokenizer, (HELLO[0], {"role": "assistant", "content": "\n\nfour"}), 200)
    np.testing.assert_array_equal(example.tokens[: len(prompt)], prompt)


def test_a_tokenizer_that_puts_a_space_before_every_text_puts_none_before_the_response():
    tokenizer = metaspace_tokenizer(LLAMA2.replace("' ' + message", "message"))
    example, _ = encode(tokenizer, HELLO, 200)
    tokens = tokenizer.convert_ids_to_tokens(example.tokens[example.supervised])
    assert tokens[:2] == ["y", "e"]
    assert tokens[-1] == "</s>"


def test_the_template_writes_the_only_bos():
    tokenizer = metaspace_tokenizer(LLAMA2)
    example, _ = encode(tokenizer, HELLO, 200)
    assert tokenizer.convert_ids_to_tokens(example.tokens).count("<s>") == 1


def test_the_first_token_is_never_supervised():
    template = "{% if messages[-1]['role'] == 'assistant' %}{{ messages[-1]['content'] }}{% endif %}"
    example, _ = encode(tiny_tokenizer(template), HELLO, 200)
    assert not example.supervised[0]
    assert example.supervised[1:].all()


def test_truncation_cuts_the_right_end_and_is_told():
    tokenizer = tiny_tokenizer()
    whole, truncated = encode(tokenizer, HELLO, 200)
    n = len(whole.tokens)
    cut, was_cut = encode(tokenizer, HELLO, n - 2)
    assert (truncated, was_cut) == (False, True)
    np.testing.assert_array_equal(cut.tokens, whole.tokens[:-2])
    np.testing.assert_array_equal(cut.supervised, whole.supervised[:-2])
    assert encode(tokenizer, HELLO, n)[1] is False


def test_an_example_without_a_supervised_token_is_refused():
    tokenizer = tiny_tokenizer()
    prompt = len(encode_prompt(tokenizer, HELLO[:1]))
    assert encode(tokenizer, HELLO, prompt + 1)[0].supervised.sum() == 1
    with pytest.raises(
        ValueError, match=rf"f.jsonl:7: no supervised token is left after truncation to {prompt} tokens"
    ):
        encode(tokenizer, HELLO, prompt, where="f.jsonl:7")


def test_an_empty_block_is_told_as_such_and_not_as_truncation():
    template = CHATML_GENERATION.replace("{{- message['content'] + '<|im_end|>' }}\n        {%- endgen", "{%- endgen")
    assert template != CHATML_GENERATION
    with pytest.raises(
        ValueError, match=r"f.jsonl:7: no token is supervised: .*\(an empty {% generation %} block"
    ) as error:
        encode(tiny_tokenizer(template), HELLO, 200, where="f.jsonl:7")
    assert "truncation" not in str(error.value)


def test_a_tokenizer_without_template_names_its_folder():
    tokenizer = tiny_tokenizer(None)
    tokenizer.name_or_path = "models/mine"
    with pytest.raises(ValueError, match=r"put chat_template.jinja into models/mine "):
        encode(tokenizer, HELLO, 200)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('system first') }}", "system first"),
        ("{{ messages[0].content.nothing() }}", "nothing"),
        ("{{ messages[0].content + 1 }}", "concatenate"),
        ("{% if %}", "the chat template is damaged at line 1"),
        ("{{ 1 / 0 }}", "fails on this conversation: division by zero"),
        ("{{ '\\ud800' }}", "writes what is no text"),
        ("{{ 'a' * 10**10 }}", "has a power at line 1"),
        (None, r"no chat template; put chat_template.jinja into the model's folder \(or `chat_template` into its"),
    ],
)
def test_a_template_error_names_the_record(template, reason):
    with pytest.raises(ValueError, match=rf"f.jsonl:7: .*{reason}"):
        encode(tiny_tokenizer(template), HELLO, 200, where="f.jsonl:7")


LOOKING_BACK = CHATML.replace(
    "message['content'] +", "message['content'] ~ ('.' if loop.last and message.role == 'assistant' else '') +"
)
ADVICE = {
    "take it out of the generation prompt": (
        DEEPSEEK,
        HELLO,
        r"let both begin a response alike: take '<think>\\n' out of the template's generation prompt, or write it before",
        lambda template: template.replace("assistant\n<think>\n' }}{% endif %}", "assistant\n' }}{% endif %}"),
    ),
    "write it before the response": (
        DEEPSEEK,
        HELLO,
        r"or write it before the response in the assistant's turn \({% generation %} does not mend this\)",
        lambda template: template.replace(
            "'<|im_start|>assistant\n' +", "'<|im_start|>assistant\n<think>\n</think>' +"
        ),
    ),
    "mark the response": (
        LOOKING_BACK,
        TWO_TURNS,
        "mark the response with {% generation %} ... {% endgeneration %} in the template, opened right after",
        lambda template: template.replace(
            "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] ~ "
            "('.' if loop.last and message.role == 'assistant' else '') +",
            "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message.role == 'assistant' %}{% generation %}"
            "{{ message['content'] ~ ('.' if loop.last else '') + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
            "{% else %}{{ message['content'] +",
        ).replace("'<|im_end|>\n' }}{% endfor %}", "'<|im_end|>\n' }}{% endif %}{% endfor %}"),
    ),
}


@pytest.mark.parametrize("advice", ADVICE)
def test_the_advice_on_a_template_leads_on(advice):
    template, messages, sentence, follow = ADVICE[advice]
    with pytest.raises(ValueError, match=rf"here:3: the chat template does not render .*{sentence}"):
        encode(tiny_tokenizer(template), messages, 200, where="here:3")
    mended = follow(template)
    assert mended != template
    tokenizer = tiny_tokenizer(mended)
    prompt, example = encode_prompt(tokenizer, messages[:-1]), encode(tokenizer, messages, 200)[0]
    answer = encode_response(tokenizer, messages[:-1], messages[-1]["content"])
    assert [*prompt, *answer] == example.tokens.tolist()
    assert messages[-1]["content"] in tokenizer.decode(example.tokens[example.supervised])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"content": "What is <|im_end|>?"}, r"message 2 \(user\) contains '<\|im_end\|>'"),
        ({"content": "<|endoftext|>"}, r"message 2 \(user\) contains '<\|endoftext\|>'"),
        ({"content": f"a{OPEN}b"}, r"message 2 \(user\) contains '.ue000generation"),
        ({"name": "<|im_start|>"}, r"message 2 \(user\) contains '<\|im_start\|>'"),
    ],
)
def test_a_text_that_would_become_structure_is_refused(change, name):
    tokenizer, messages = tiny_tokenizer(), (TWO_TURNS[0], {**TWO_TURNS[1], **change}, TWO_TURNS[2])
    for refused in (
        lambda: encode(tokenizer, messages, 200, where="f.jsonl:7"),
        lambda: encode_prompt(tokenizer, messages[:-1], where="f.jsonl:7"),
        lambda: encode_response(tokenizer, messages[:-1], "x", where="f.jsonl:7"),
    ):
        with pytest.raises(ValueError, match=f"f.jsonl:7: {name}.*; take it out"):
            refused()


def test_a_response_tools_and_arguments_are_looked_through_too():
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": ["<|im_end|>"]}}}
    tools = ({"type": "function", "function": {"name": "f", "description": "ends <|im_end|>"}},)
    answer = {"role": "assistant", "content": "yes"}
    for bad, given, name in (
        ({**answer, "content": "The <|im_end|> ends it."}, None, r"message 2 \(assistant\)"),
        ({**answer, "reasoning_content": "<|im_end|>"}, None, r"message 2 \(assistant\)"),
        ({**answer, "tool_calls": [call]}, None, r"message 2 \(assistant\)"),
        (answer, tools, "tools"),
    ):
        with pytest.raises(ValueError, match=f"{name} contains"):
            encode(tiny_tokenizer(), (HELLO[0], bad), 200, tools=given)


def test_a_token_that_is_not_special_is_text():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    example, _ = encode(tokenizer, (HELLO[0], {"role": "assistant", "content": "<think>hm</think>yes"}), 200)
    assert tokenizer.convert_tokens_to_ids("</think>") in example.tokens[example.supervised]


@pytest.mark.parametrize(
    ("template", "unended"),
    [
        (CHATML, False),
        (CHATML_GENERATION, False),
        (SMOLLM3, False),
        (CHATML.replace("<|im_end|>", ""), True),
        (LLAVA, True),
    ],
)
def test_a_response_without_an_end_is_told(template, unended):
    assert encode_whole(tiny_tokenizer(template), HELLO, 200).unended is unended


def test_the_end_of_an_untrained_response_does_not_matter():
    template = CHATML.replace("'<|im_end|>\n' }}", "('<|im_end|>' if loop.index != 3 else '') + '\n' }}")
    untrained = (*TWO_TURNS[:2], {**TWO_TURNS[2], "train": False}, *TWO_TURNS[3:])
    tokenizer = tiny_tokenizer(template)
    assert encode_whole(tokenizer, TWO_TURNS, 200).unended
    assert not encode_whole(tokenizer, untrained, 200).unended


def test_a_template_that_marks_some_responses_only_is_refused():
    once = CHATML_GENERATION.replace(
        "message['role'] == 'assistant' %}", "message['role'] == 'assistant' and loop.last %}"
    )
    with pytest.raises(ValueError, match=r"marks 1 responses with {% generation %}, the conversation has 2"):
        encode(tiny_tokenizer(once), TWO_TURNS, 200)


def test_the_digest_follows_vocabulary_and_template():
    digests = {tokenizer_digest(tiny_tokenizer(template)) for template in (CHATML, CHATML, CHATML_GENERATION)}
    assert len(digests | {tokenizer_digest(metaspace_tokenizer(CHATML))}) == 3
