"""What a chat template leaves out of a conversation is named, also where the same words are elsewhere in the rendering."""

import pytest

from merit_jax.data.chat_template import encode_whole
from merit_jax.data.formats import to_record
from tests.support.templates import HELLO, QWEN3, TWO_TURNS, WITHOUT_SYSTEM
from tests.support.tiny_tokenizer import CHATML, CHATML_GENERATION, CHATML_TOOLS, tiny_tokenizer

THOUGHTS = (*TWO_TURNS[1:2], {**TWO_TURNS[2], "reasoning_content": "because"}, *TWO_TURNS[3:])


@pytest.mark.parametrize(
    ("template", "messages", "names"),
    [
        (CHATML, TWO_TURNS, ()),
        (WITHOUT_SYSTEM, TWO_TURNS, ("message 1 (system)",)),
        (CHATML, THOUGHTS, ("reasoning of message 2 (assistant)",)),
        (QWEN3, THOUGHTS, ("reasoning of message 2 (assistant)",)),
        (QWEN3, (*THOUGHTS[:-1], {**THOUGHTS[-1], "reasoning_content": "so"}), ("reasoning of message 2 (assistant)",)),
        (QWEN3, (HELLO[0], {**HELLO[1], "reasoning_content": "so"}), ()),
        (
            CHATML.replace("message['content']", "message['content'] | trim"),
            (*HELLO[:1], {**HELLO[1], "content": " a\n"}),
            (),
        ),
    ],
)
def test_texts_that_a_template_leaves_out_are_named(template, messages, names):
    assert encode_whole(tiny_tokenizer(template), messages, 200).unseen == names


SEARCH = {
    "name": "search",
    "parameters": {
        "type": "object",
        "properties": {"q": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["q"],
    },
}
CATS = {
    "messages": [
        {"role": "user", "content": "Please search for cats"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"name": "search", "arguments": {"q": "cats", "n": 3, "x": 0.5, "all": True}}],
        },
        {"role": "tool", "content": "12 found"},
        {"role": "assistant", "content": "12 found"},
    ],
    "tools": [SEARCH],
}
CALLS, HEADED = "tool calls of message 2 (assistant)", "{{ tools | tojson }}" + CHATML
NOT_TOOL = CHATML_TOOLS.replace(
    "{% for message in messages %}", "{% for message in messages if message.role != 'tool' %}"
)


def unseen(template, row):
    """What a template leaves out of a row."""
    record = to_record("messages", row, "f:1")
    return encode_whole(tiny_tokenizer(template), record.messages, 4096, tools=record.tools).unseen


@pytest.mark.parametrize(
    ("template", "names"),
    [
        (CHATML_TOOLS, ()),
        (CHATML, (CALLS, "tools")),
        (HEADED, (CALLS,)),
        (NOT_TOOL, ("message 3 (tool)",)),
        (CHATML_TOOLS.replace("call.function.name", "''"), (CALLS,)),
        (CHATML_TOOLS.replace("call.function.arguments |", "'' |"), (CALLS,)),
        (CHATML_TOOLS.replace("call.function.arguments |", "call.function.arguments.values() | list |"), (CALLS,)),
        (CHATML_TOOLS.replace("call.function.arguments |", "call.function.arguments.keys() | list |"), (CALLS,)),
        (CHATML_TOOLS.replace("+ tools |", "+ tools | map(attribute='function.name') | list |"), ("tools",)),
        (CHATML_TOOLS.replace("+ tools |", "+ tools | map(attribute='function.parameters') | list |"), ("tools",)),
    ],
)
def test_calls_and_functions_that_a_template_leaves_out_are_named(template, names):
    assert unseen(template, CATS) == names


def test_texts_of_arguments_are_found_in_their_json():
    call = {"name": "search", "arguments": {"q": 'a "b"\nc', "deep": [{"k": ["v", None]}], "": " "}}
    row = {**CATS, "messages": [CATS["messages"][0], {"role": "assistant", "tool_calls": [call]}]}
    assert unseen(CHATML_TOOLS, row) == ()


def test_a_system_message_that_the_users_turn_contains_counts():
    row = {"messages": [{"role": "system", "content": "one"}, {"role": "user", "content": "one two"}, HELLO[1]]}
    assert unseen(WITHOUT_SYSTEM, row) == ("message 1 (system)",)
    assert unseen(CHATML, row) == ()


def test_reasoning_that_the_answer_contains_counts():
    answer = {"role": "assistant", "content": "The answer is 4", "reasoning_content": "4"}
    assert unseen(CHATML, {"messages": [HELLO[0], answer]}) == ("reasoning of message 2 (assistant)",)
    assert unseen(CHATML_TOOLS, {"messages": [HELLO[0], answer]}) == ()


def test_a_response_that_is_trained_as_its_end_alone_counts():
    template = CHATML_GENERATION.replace(
        "{{- '<|im_start|>assistant\n' }}", "{{- '<|im_start|>assistant\n' + message['content'] }}", 1
    ).replace("{{- message['content'] + '<|im_end|>' }}", "{{- '<|im_end|>' }}")
    assert unseen(template, {"messages": list(HELLO)}) == ("message 2 (assistant)",)
    empty = [HELLO[0], {"role": "assistant", "content": "", "reasoning_content": ""}]
    assert encode_whole(tiny_tokenizer(), empty, 200).unseen == ()


def test_signs_change_nothing_that_a_template_decides_by_a_text():
    template = CHATML_TOOLS.replace(
        "{% for message in messages %}",
        "{% for message in messages %}{% if message.role == 'tool' and not (message.content.startswith('<r>') and "
        "message.content.endswith('</r>')) %}{{ raise_exception('no result') }}{% endif %}",
    )
    result = {"role": "tool", "content": "<r>12 found</r>"}
    row = {**CATS, "messages": [*CATS["messages"][:2], result, CATS["messages"][3]]}
    assert unseen(template, row) == ()
    assert unseen(template.replace("call.function.name", "''"), row) == (CALLS,)
