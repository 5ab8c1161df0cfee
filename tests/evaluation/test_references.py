"""A response with reasoning or calls is scored by its answer, or by its calls."""

import pytest

from merit_jax.core.types import Record
from merit_jax.evaluation.prompts import exact_match
from merit_jax.evaluation.questions import question_ids
from merit_jax.evaluation.references import reference
from tests.support.tiny_tokenizer import CHATML, CHATML_TOOLS, tiny_tokenizer

ASK = {"role": "user", "content": "Rain in Bergen?"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Bergen"}}}
TOOL = {"type": "function", "function": {"name": "weather"}}


def record(tools=None, **fields):
    return Record((ASK, {"role": "assistant", "content": "", **fields}), None, "test:1", None, tools)


def score(of, written, template=CHATML_TOOLS):
    right = reference(tiny_tokenizer(template), of)
    return exact_match(right.answer(written), right.text)


def test_a_response_that_calls_is_compared_as_the_template_writes_it():
    called = record((TOOL,), tool_calls=[CALL])
    assert score(called, '<call>weather {"town": "Bergen"}</call>') == 1
    assert score(called, '<call>weather {"town": "Oslo"}</call>') == 0
    assert score(called, "") == 0
    said = record((TOOL,), content="Let me look.", tool_calls=[CALL])
    assert score(said, 'Let me look.<call>weather {"town": "Bergen"}</call>') == 1


def test_reasoning_is_not_compared():
    reasoned = record(content="Yes.", reasoning_content="It pours.")
    assert score(reasoned, "<think>Bergen, so rain.</think>\nYes.") == 1
    assert score(reasoned, "<think>Yes.</think>\nNo.") == 0
    called = record(reasoning_content="It pours.", tool_calls=[CALL])
    assert score(called, '<think>I do not know.</think>\n<call>weather {"town": "Bergen"}</call>') == 1
    assert score(called, '<think>I do not know.</think>\n<call>weather {"town": "Oslo"}</call>') == 0


@pytest.mark.parametrize("template", [CHATML, CHATML_TOOLS])
def test_a_response_of_text_is_compared_as_it_is(template):
    assert score(record(content="Yes."), "Yes.", template) == 1
    assert score(record(content="Yes."), "<think>t</think>Yes.", template) == 0


def test_questions_that_differ_in_tools_or_calls_are_different_questions():
    records = [record(tools, tool_calls=[call]) for tools in (None, (TOOL,)) for call in (CALL, {**CALL, "id": "c1"})]
    assert len(set(question_ids(records))) == 4


def test_an_argument_that_looks_like_an_image_is_not_opened():
    arguments = {"part": {"type": "image", "path": "/no/such/file"}}
    call = {"type": "function", "function": {"name": "draw", "arguments": arguments}}
    assert len(question_ids([record(tool_calls=[call])])) == 1
