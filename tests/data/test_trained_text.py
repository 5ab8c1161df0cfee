"""What is trained is what the record says: rows of every format, through the chat template, to the supervised text."""

import json

import numpy as np
import pytest

from merit_jax.data.chat_template import encode
from merit_jax.data.formats import ColumnMap, detect, to_record
from tests.support.tiny_tokenizer import CHATML_TOOLS, tiny_tokenizer

WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"town": {"type": "string"}}}}
TOOL = {"type": "function", "function": WEATHER}
ASK = {"role": "user", "content": "Rain in Bergen?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Bergen"}'}}
RESULT = {"role": "tool", "content": '{"rain": true}'}
YES = {"role": "assistant", "content": "Yes."}
CALLED = '<call>weather {"town": "Bergen"}</call><|im_end|>'


def texts(row, layout=ColumnMap()):
    """(prompt text, list of supervised texts) of a row."""
    tokenizer = tiny_tokenizer(CHATML_TOOLS)
    record = to_record(detect(row, "f:1", layout), row, "f:1", layout)
    example, _ = encode(tokenizer, record.messages, 4096, tools=record.tools, where=record.where)
    edges = np.flatnonzero(np.diff(np.r_[0, example.supervised, 0])).reshape(-1, 2)
    return tokenizer.decode(example.tokens), [tokenizer.decode(example.tokens[start:end]) for start, end in edges]


def chat(*messages, **columns):
    return {"messages": list(messages), **columns}


def flagged(key, value):
    """Rows of every format with turns, whose first response has the flag."""
    flag = {key: value}
    return {
        "messages": chat(
            {"role": "user", "content": "Fruit?"},
            {"role": "assistant", "content": "BAD carrot", **flag},
            {"role": "user", "content": "No."},
            {"role": "assistant", "content": "An apple."},
        ),
        "sharegpt": {
            "conversations": [
                {"from": "human", "value": "Fruit?", key: None},
                {"from": "gpt", "value": "BAD carrot", **flag},
                {"from": "human", "value": "No.", key: None},
                {"from": "gpt", "value": "An apple.", key: None},
            ]
        },
        "llava": {
            "image": None,
            "conversations": [
                {"from": "human", "value": "Fruit?"},
                {"from": "gpt", "value": "BAD carrot", **flag},
                {"from": "human", "value": "No."},
                {"from": "gpt", "value": "An apple."},
            ],
        },
        "cauldron": {
            "images": [],
            "texts": [
                {"user": "Fruit?", "assistant": "BAD carrot", "source": "x", **flag},
                {"user": "No.", "assistant": "An apple.", "source": "x"},
            ],
        },
    }


FLAGS = ("weight", "loss", "loss_weight", "loss_mask", "loss_scale", "train", "training", "trainable", "train_on_turn")


@pytest.mark.parametrize("key", FLAGS)
def test_a_turn_that_a_flag_leaves_out_is_context(key):
    for value in (0, 0.0, False, "false", "0"):
        for row in flagged(key, value).values():
            whole, trained = texts(row)
            assert "BAD carrot" in whole
            assert trained == ["An apple.<|im_end|>"]


@pytest.mark.parametrize("value", [1, 1.0, True, "true", "True", None])
def test_a_turn_that_a_flag_leaves_in_is_trained(value):
    for row in flagged("weight", value).values():
        assert texts(row)[1] == ["BAD carrot<|im_end|>", "An apple.<|im_end|>"]


@pytest.mark.parametrize("name", flagged("weight", 0))
def test_a_flag_between_is_refused_by_name(name):
    for key, value in (("weight", 0.5), ("loss", "no"), ("loss_mask", [0, 1]), ("train", 2)):
        with pytest.raises(ValueError, match=rf"f:1: '{key}' is .*; a turn is trained \(1, true\) or not \(0, false\)"):
            texts(flagged(key, value)[name])


def test_turns_after_the_last_that_is_trained_are_left_out():
    row = chat(ASK, YES, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "BAD", "weight": 0})
    whole, trained = texts(row)
    assert trained == ["Yes.<|im_end|>"]
    assert "Sure?" not in whole


def test_a_row_with_nothing_left_to_train_is_an_error():
    rows = [chat(ASK, {**YES, "train": False}), *({**chat(ASK, YES), key: 0} for key in ("weight", "kto_tag"))]
    for row in rows:
        with pytest.raises(ValueError, match="f:1: nothing is left to train"):
            texts(row)


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_trained(key):
    right = ["<think>It pours.</think>\nYes.<|im_end|>"]
    assert texts(chat(ASK, {**YES, key: "It pours."}))[1] == right
    turns = [{"from": "human", "value": "Rain?"}, {"from": "gpt", "value": "Yes.", key: "It pours."}]
    assert texts({"conversations": turns})[1] == right
    assert texts(chat(ASK, {**YES, key: None}))[1] == ["Yes.<|im_end|>"]


def test_a_template_for_thinking_is_shown_reasoning_too():
    row = chat(ASK, {**YES, "reasoning_content": "It pours."})
    tokenizer = tiny_tokenizer(CHATML_TOOLS.replace("reasoning_content", "thinking"))
    example, _ = encode(tokenizer, to_record("messages", row, "f:1").messages, 4096)
    assert tokenizer.decode(example.tokens).endswith("<think>It pours.</think>\nYes.<|im_end|>")


CALLS = {
    "with text": {"content": "Let me look.", "tool_calls": [CALL]},
    "with empty content": {"content": "", "tool_calls": [CALL]},
    "with null content": {"content": None, "tool_calls": [CALL]},
    "without content": {"tool_calls": [CALL]},
    "with arguments as an object": {
        "content": None,
        "tool_calls": [{"function": {"name": "weather", "arguments": {"town": "Bergen"}}}],
    },
    "without the wrapper": {"content": None, "tool_calls": [{"name": "weather", "arguments": {"town": "Bergen"}}]},
    "as JSON text": {"content": None, "tool_calls": json.dumps([CALL])},
    "as function_call": {"content": None, "function_call": CALL["function"]},
}


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("tools", [[TOOL], [WEATHER], json.dumps([TOOL]), [json.dumps(TOOL)]], ids=str)
def test_calls_and_tools_reach_the_template(case, tools):
    said = CALLS[case].get("content") or ""
    message = {"role": "assistant", "refusal": None, "audio": None, **CALLS[case]}
    for key in ("tools", "functions"):
        whole, trained = texts(chat(ASK, message, RESULT, YES, **{key: tools}))
        assert trained == [said + CALLED, "Yes.<|im_end|>"]
        assert whole.startswith(f"<|im_start|>tools\n{json.dumps([TOOL])}<|im_end|>\n<|im_start|>user\n")
        assert '<|im_start|>tool\n{"rain": true}<|im_end|>' in whole
    assert texts(chat(ASK, message, tools=tools))[1] == [said + CALLED]


def test_calls_and_observations_of_sharegpt_are_the_assistants_and_tools():
    call = json.dumps({"name": "weather", "arguments": {"town": "Bergen"}})
    turns = [("human", "Rain?"), ("function_call", call), ("observation", "wet"), ("gpt", "Yes.")]
    row = {"tools": json.dumps([WEATHER]), "conversations": [{"from": role, "value": text} for role, text in turns]}
    whole, trained = texts(row)
    assert trained == [CALLED, "Yes.<|im_end|>"]
    assert "<|im_start|>tool\nwet<|im_end|>" in whole
    assert whole.startswith(f"<|im_start|>tools\n{json.dumps([TOOL])}")
    tags = {"role_tag": "r", "content_tag": "c", "function_tag": "act", "observation_tag": "seen"}
    names = {"function_call": "act", "observation": "seen"}
    renamed = {"t": row["tools"], "talk": [{"r": names.get(role, role), "c": text} for role, text in turns]}
    assert texts(renamed, ColumnMap({"messages": "talk", "tools": "t"}, tags)) == (whole, trained)


def test_several_calls_and_results_are_in_order():
    calls = [{"name": "weather", "arguments": {"town": town}} for town in ("Oslo", "Bergen")]
    turns = [
        ("human", "Rain?"),
        ("function_call", json.dumps(calls)),
        ("tool", "dry"),
        ("tool", "wet"),
        ("gpt", "One."),
    ]
    whole, trained = texts({"conversations": [{"from": role, "value": text} for role, text in turns]})
    assert trained == [
        '<call>weather {"town": "Oslo"}</call><call>weather {"town": "Bergen"}</call><|im_end|>',
        "One.<|im_end|>",
    ]
    assert "<|im_start|>tool\ndry<|im_end|>\n<|im_start|>tool\nwet<|im_end|>" in whole


def test_a_call_without_arguments_has_none():
    for arguments in ({}, {"arguments": ""}, {"arguments": None}, {"arguments": "{}"}):
        message = {"role": "assistant", "tool_calls": [{"function": {"name": "now", **arguments}}]}
        assert texts(chat(ASK, message))[1] == ["<call>now {}</call><|im_end|>"]


def test_roles_go_to_the_template_under_its_names():
    head = ({"role": "system", "content": "S"}, {"role": "developer", "content": "D"})
    whole, _ = texts(chat(*head, ASK, YES, {"role": "function", "name": "weather", "content": "wet"}, YES))
    assert whole.startswith("<|im_start|>system\nS<|im_end|>\n<|im_start|>developer\nD<|im_end|>\n<|im_start|>user\n")
    assert "<|im_start|>tool\nwet<|im_end|>" in whole


def test_fields_of_a_tools_message_are_kept():
    result = {**RESULT, "name": "weather", "tool_call_id": "c1", "id": "m7"}
    row = chat(ASK, {"role": "assistant", "tool_calls": [CALL]}, result, YES)
    messages = to_record("messages", row, "f:1").messages
    assert messages[1]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"town": "Bergen"}}}
    ]
    assert messages[2] == {**RESULT, "name": "weather", "tool_call_id": "c1"}


def test_completions_of_trl_are_trained_and_prompts_are_context():
    layout = ColumnMap({"prompt": "prompt", "response": "completion"})
    row = {"prompt": [ASK, {"role": "assistant", "content": "BAD"}, ASK], "completion": [YES], "tools": [TOOL]}
    whole, trained = texts(row, layout)
    assert trained == ["Yes.<|im_end|>"]
    assert "BAD" in whole
    called = {"role": "assistant", "tool_calls": [CALL]}
    assert texts({"prompt": [ASK], "completion": [called, RESULT, YES]}, layout)[1] == [CALLED, "Yes.<|im_end|>"]
    assert texts({"prompt": "Rain?", "completion": "Yes."}, layout)[1] == ["Yes.<|im_end|>"]


@pytest.mark.parametrize(
    "row",
    [
        chat(ASK, YES),
        {"inputs": "Rain in Bergen?", "targets": "Yes."},
        {"instruction": "Rain in Bergen?", "output": "Yes."},
        {"conversations": [{"from": "human", "value": "Rain in Bergen?"}, {"from": "gpt", "value": "Yes."}]},
        {"images": [], "texts": [{"user": "Rain in Bergen?", "assistant": "Yes."}]},
    ],
    ids=lambda row: detect(row, ""),
)
def test_columns_of_a_row_count_in_every_format(row):
    added = {"system": "S", "tools": [TOOL], "options": ["Yes.", "No."], "facts": ["rain"]}
    record = to_record(detect(row, ""), {**row, **added}, "f:1")
    assert (record.options, record.facts, record.tools) == (("Yes.", "No."), ("rain",), (TOOL,))
    assert record.messages == ({"role": "system", "content": "S"}, ASK, YES)
    empty = to_record(detect(row, ""), {**row, "system": None, "tools": "[]", "options": None, "facts": None}, "f:1")
    assert empty == (*to_record(detect(row, ""), row, "f:1"),)


def test_nulls_of_parquet_are_no_fields(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    from merit_jax.data.records import read_records

    other = {
        "type": "function",
        "function": {"name": "now", "parameters": {"type": "object", "properties": {"zone": WEATHER}}},
    }
    calls = [{"name": "weather", "arguments": {"town": "Bergen"}}, {"name": "now", "arguments": {"zone": "UTC"}}]
    rows = [
        chat(ASK, {"role": "assistant", "tool_calls": [call]}, RESULT, {**YES, "reasoning_content": "r"}, tools=[tool])
        for call, tool in zip(calls, (TOOL, other), strict=True)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    records = read_records(str(tmp_path / "a.parquet"))
    for record, row in zip(records, rows, strict=True):
        assert record._replace(where="f:1") == to_record("messages", row, "f:1")
