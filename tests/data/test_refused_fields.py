"""A field that would change training and is not read is refused by name, with what to do; what says nothing passes."""

import pytest

from merit_jax.data.formats import ColumnMap, detect, to_record
from merit_jax.data.messages import TURN_FLAGS
from tests.fuzz import corpus, mutators

ASK, YES = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
CALL = {"name": "weather", "arguments": {"town": "Bergen"}}
RESULT = {"role": "tool", "content": "wet"}


def chat(*messages, **columns):
    return {"messages": list(messages), **columns}


def calling(**fields):
    return chat(ASK, {"role": "assistant", "content": "", **fields})


def talk(*turns, **columns):
    return {"conversations": [{"from": role, "value": value} for role, value in turns], **columns}


def flan(**columns):
    return {"inputs": "Q", "targets": "A", **columns}


REFUSED = {
    "a turn's unknown field": (
        chat(ASK, {**YES, "score": 3}),
        "a turn of role 'assistant' has a field 'score', which is",
    ),
    "a turn's false field": (chat(ASK, {**YES, "partial": False}), "has a field 'partial', which is not read"),
    "a field of sharegpt": (
        {"conversations": [{"from": "human", "value": "Q", "lang": "en"}]},
        "a turn of role 'user' has a field 'lang', which is not read",
    ),
    "a field of the cauldron": (
        {"images": [], "texts": [{"user": "Q", "assistant": "A", "hint": "h"}]},
        "has a field 'hint', which is not read",
    ),
    "a name": (chat({**ASK, "name": "Ann"}, YES), "has a field 'name', which is not read; write it into the text"),
    "reasoning of a user": (chat({**ASK, "thinking": "t"}, YES), "'thinking', .* belongs into the assistant's turns"),
    "calls of a user": (chat({**ASK, "tool_calls": [CALL]}, YES), "'tool_calls', .* calls belong into the assistant's"),
    "two reasonings": (chat(ASK, {**YES, "thinking": "t", "reasoning": "r"}), "two fields of reasoning that differ"),
    "reasoning no text": (chat(ASK, {**YES, "reasoning_content": 3}), "field 'reasoning_content' must be a string"),
    "reasoning alone": (chat(ASK, {**YES, "content": "", "thinking": "t"}), "empty response; fill it in"),
    "a user to train": (chat({**ASK, "weight": 1}, YES), "'weight' asks to train a turn of role 'user'"),
    "flags that disagree": (chat(ASK, {**YES, "weight": 0, "train": True}), "contradict each other; keep one"),
    "a part's field": (
        chat({"role": "user", "content": [{"type": "text", "text": "Q", "max_pixels": 9}]}, YES),
        "a content part has a field 'max_pixels', which is not read",
    ),
    "a call no object": (calling(tool_calls=[3]), "field 'tool_calls' holds 3; write a list of objects"),
    "a call no JSON": (calling(tool_calls="weather()"), "'weather\\(\\)' is no JSON"),
    "a call of sharegpt no JSON": (
        talk(("human", "Q"), ("function_call", "weather()")),
        "field 'value': .* is no JSON",
    ),
    "an empty call": (talk(("human", "Q"), ("function_call", "")), "field 'value' holds no call"),
    "a call without a name": (calling(tool_calls=[{"arguments": {}}]), "a call names no function"),
    "a call of another type": (calling(tool_calls=[{**CALL, "type": "custom"}]), "remove or rename .*'type'"),
    "a call's field": (calling(tool_calls=[{"name": "f", "parameters": {"a": 1}}]), "remove or rename .*'parameters'"),
    "a call's result": (calling(tool_calls=[{"function": CALL, "output": "wet"}]), "remove or rename .*'output'"),
    "a function no object": (calling(tool_calls=[{"function": "weather"}]), "the 'function' of a call is 'weather'"),
    "an id no text": (calling(tool_calls=[{**CALL, "id": 3}]), "the id of a call is 3; write it as text"),
    "arguments no object": (
        calling(tool_calls=[{**CALL, "arguments": "[1]"}]),
        "the arguments of 'weather' are \\[1\\]",
    ),
    "arguments no JSON": (
        calling(tool_calls=[{**CALL, "arguments": "{a: 1}"}]),
        "arguments of 'weather': .* is no JSON",
    ),
    "arguments with NaN": (calling(tool_calls=[{**CALL, "arguments": {"a": float("nan")}}]), "that JSON does not have"),
    "tools no list": (chat(ASK, YES, tools=3), "field 'tools' holds 3; write a list of objects"),
    "tools no functions": (chat(ASK, YES, tools=["hammer"]), "field 'tools': 'hammer' is no JSON"),
    "tools of another type": (chat(ASK, YES, tools=[{"type": "web_search"}]), "which describes no function"),
    "two columns of tools": (chat(ASK, YES, tools=[CALL], functions=[CALL]), "both 'tools' and 'functions' are set"),
    "a preference": (
        flan(rejected="B"),
        "the row has a field 'rejected', .* a preference pair is not instruction data",
    ),
    "options of the template": (
        chat(ASK, YES, chat_template_kwargs={"enable_thinking": False}),
        "the row has a field 'chat_template_kwargs', which is not read",
    ),
    "reasoning of a row": (flan(reasoning_content="r"), "'reasoning_content', .* it belongs into the assistant's turn"),
    "reasoning under another name": (flan(reasoning="r"), "'reasoning', .* it belongs into the assistant's turn"),
    "a system prompt": (chat(ASK, YES, system_prompt="S"), "'system_prompt', .*{system: system_prompt}"),
    "a context": ({"instruction": "Q", "context": "C", "output": "A"}, "'context', .*{query: context}"),
    "an instruction beside inputs": (flan(instruction="I"), "'instruction', which is not read"),
    "targets beside an output": ({"instruction": "Q", "output": "A", "targets": "T"}, "'targets', which is not read"),
    "two conversations": (
        chat(ASK, YES, conversations=[{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]),
        "'messages', which is not read; .*{messages: ...}",
    ),
    "a row's weight": (flan(weight=0.5), "'weight' is 0.5; a turn is trained"),
    "a row not to train": (flan(kto_tag=False), "nothing is left to train, {'kto_tag': False} marks the row"),
    "sound": (flan(audio=["a.wav"]), "the row has a 'audio' field, which is not read"),
    "two systems": (
        chat({"role": "system", "content": "S"}, ASK, YES, system="T"),
        "roles out of order: .*: 'system' comes twice",
    ),
    "an input of 0": (
        {"instruction": "Even?", "input": 0, "output": "yes"},
        "field 'input' must be a string, got int: 0",
    ),
    "an unknown role": (chat({"role": "critic", "content": "Q"}), "unknown role 'critic'; expected one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_field_that_would_be_lost_is_refused_by_name(case):
    row, reason = REFUSED[case]
    with pytest.raises(ValueError, match=f"f:1: .*{reason}"):
        to_record(detect(row, "f:1"), row, "f:1")


def test_a_field_that_is_mapped_is_read_as_what_it_is_mapped_to():
    row = {"instruction": "Q", "chosen": "A"}
    assert to_record("alpaca", row, "f:1", ColumnMap({"response": "chosen"})).messages[-1] == YES


def test_a_mapping_of_tools_does_not_hide_the_default_column():
    row, layout = chat(ASK, YES, tools=[CALL]), ColumnMap({"tools": "functions"})
    with pytest.raises(ValueError, match=r"f:1: the row has a field 'tools', which is not read, .* names 'functions'"):
        to_record("messages", row, "f:1", layout)
    assert to_record("messages", {**row, "tools": []}, "f:1", layout).tools is None


def objects(value, path=()):
    """Paths of the objects of a conversation, without references to images."""
    found = [path] if isinstance(value, dict) else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [deep for key, part in pairs if key != "image_url" for deep in objects(part, (*path, key))]


def added(value, path, key):
    """A copy of a value with one field more, or replaced, in an object of it."""
    if not path:
        return {**value, key: "SENTINEL"}
    inner = added(value[path[0]], path[1:], key)
    return {**value, path[0]: inner} if isinstance(value, dict) else [*value[: path[0]], inner, *value[path[0] + 1 :]]


@pytest.mark.parametrize("name", ["sharegpt", "llava", "cauldron", "openai"])
def test_no_field_of_a_turn_is_lost_in_silence(name):
    cases, lost = 0, []
    for row in corpus.ROWS[name]:
        column = next(key for key in ("conversations", "texts", "messages") if key in row)
        for path in objects(row[column]):
            for key in (*mutators.FIELDS, *TURN_FLAGS, "surprise"):
                cases += 1
                try:
                    record = to_record(name, added(row, (column, *path), key), "f:1", ColumnMap(image_root="/data"))
                except ValueError:
                    continue
                if "SENTINEL" not in repr(record):
                    lost.append((*path, key))
    assert cases >= 28
    assert lost == []


EMPTY = {
    "tool_calls": [],
    "function_call": None,
    "reasoning_content": "",
    "refusal": None,
    "annotations": [],
    "weight": None,
}


def test_fields_that_say_nothing_pass():
    row = chat({**ASK, "name": None, **EMPTY}, {**YES, **EMPTY})
    row |= {"tools": None, "options": None, "rejected": None, "weight": None, "kto_tag": True}
    row |= {
        "chat_template_kwargs": {"enable_thinking": None, "xml_tools": []},
        "id": 7,
        "source": "x",
        "category": "qa",
    }
    assert to_record("messages", row, "f:1").messages == (ASK, YES)
    turns = [{"from": "human", "value": "Q", "id": "1", "weight": 0}, {"from": "gpt", "value": "A", "markdown": None}]
    assert to_record("sharegpt", {"conversations": turns}, "f:1").messages == (ASK, YES)


OPTIONS = {
    "repeat": ["A", "B", "A"],
    "repeat but for space": ["A", " A"],
    "are empty": [],
    "are single": ["A"],
    "hold an empty one": ["A", ""],
    "hold a blank one": ["A", " \n"],
}


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize(
    "row", [flan(), chat(ASK, YES), talk(("human", "Q"), ("gpt", "A"))], ids=["flan", "chat", "talk"]
)
def test_options_that_are_no_choice_are_refused(case, row):
    with pytest.raises(
        ValueError, match=r"f:1: the options .*; give two or more different answers, or leave the field"
    ):
        to_record(detect(row, "f:1"), {**row, "options": OPTIONS[case]}, "f:1")


@pytest.mark.parametrize("target", ["(A)", "a", "A "])
def test_a_target_that_is_not_an_option_as_it_is_written_is_refused(target):
    with pytest.raises(ValueError, match=r"f:1: target .* is not among the options \['A', 'B'\]"):
        to_record("flan", {"inputs": "Q", "targets": target, "options": ["A", "B"]}, "f:1")


U, A, T, S, D = ("human", "u"), ("gpt", "a"), ("observation", "t"), ("system", "s"), ("developer", "d")
F = ("function_call", '{"name": "f"}')
RIGHT = ([U, A], [S, D, U, A], [D, S, U, A], [U, F], [U, F, T, A], [U, F, T, T, F, T, A, U, A], [U, A, T, A])
WRONG = {
    "'assistant' at the start, where 'user' is expected": ([A, U, A], [S, A, U, A]),
    "'user' after 'user', where 'assistant' is expected": ([U, U, A],),
    "the last message must be the assistant's": ([U, A, U], [U, F, T], []),
    "'user' after 'assistant' with a call, where 'tool' is expected": ([U, F, U, A],),
    "'assistant' after 'assistant', where 'user' or 'tool' is expected": ([U, A, F], [U, A, A]),
    "'tool' after 'user', where 'assistant' is expected": ([U, T, A],),
    "'system' comes twice": ([S, S, U, A], [S, D, S, U, A]),
    "'system' after 'user', where 'assistant' is expected": ([U, S, A],),
}


@pytest.mark.parametrize("turns", RIGHT)
def test_calls_and_results_fit_into_the_order_of_turns(turns):
    assert len(to_record("sharegpt", talk(*turns), "f:1").messages) == len(turns)


@pytest.mark.parametrize("problem", WRONG)
def test_a_turn_out_of_order_is_named(problem):
    for turns in WRONG[problem]:
        with pytest.raises(ValueError, match=rf"f:1: roles out of order: \[.*\]: {problem}; expected"):
            to_record("sharegpt", talk(*turns), "f:1")


READ = {
    "an empty question": (talk(("human", ""), ("gpt", "A")), ColumnMap(), [("user", ""), ("assistant", "A")]),
    "nulls": ({"instruction": "Q", "input": None, "output": "A", "history": None, "system": None}, ColumnMap(), None),
    "Dolly": (
        {"instruction": "Q", "context": "C", "response": "A", "category": "closed_qa"},
        ColumnMap({"query": "context", "response": "response"}),
        [("user", "Q\nC"), ("assistant", "A")],
    ),
    "prompt and completion": (
        {"prompt": "Q", "completion": "A"},
        ColumnMap({"prompt": "prompt", "response": "completion"}),
        None,
    ),
    "tags of OpenAI": (
        chat({"role": "system", "content": "S"}, ASK, {"role": "assistant", "content": "<think>t</think>A"}),
        ColumnMap(
            {"messages": "messages"},
            {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        ),
        [("system", "S"), ("user", "Q"), ("assistant", "<think>t</think>A")],
    ),
}


@pytest.mark.parametrize("case", READ)
def test_rows_of_public_datasets_are_read(case):
    row, layout, right = READ[case]
    messages = to_record(detect(row, "f:1", layout), row, "f:1", layout).messages
    assert [(m["role"], m["content"]) for m in messages] == (right or [("user", "Q"), ("assistant", "A")])


UNREADABLE = {
    "an output of null": (
        "alpaca",
        {"instruction": "Q", "output": None},
        "field 'output' must be a string, got NoneType",
    ),
    "an output of an object": (
        "alpaca",
        {"instruction": "Q", "output": {"a": 1}},
        "field 'output' must be a string, got",
    ),
    "a number": ("flan", {"inputs": "2+2=", "targets": 4}, "field 'targets' must be a string, got int: 4"),
    "messages of text": ("messages", {"messages": "[]"}, "field 'messages' must be a list of objects"),
    "an empty answer of before": (
        "alpaca",
        {"instruction": "Q", "output": "A", "history": [["Q", ""]]},
        "empty response",
    ),
    "another format": ("flan", chat(ASK, YES), "missing field 'inputs'"),
    "other names of roles": (
        "sharegpt",
        talk(("human", "Q"), ("assistant", "A")),
        "unknown role 'assistant'; expected",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_rows_that_could_mean_anything_are_refused(case):
    name, row, reason = UNREADABLE[case]
    with pytest.raises(ValueError, match=f"f:1: {reason}"):
        to_record(name, row, "f:1")
