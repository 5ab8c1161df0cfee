"""Four record formats give one kind of conversation; a row that does not fit says why."""

import pytest

from merit_jax.data.formats import ColumnMap, detect, to_record


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


FLAN = {"inputs": "Q", "targets": "b", "options": ["a", "b"]}
ALPACA = {"instruction": "I", "input": "X", "output": "O", "system": "S", "history": [["q", "r"]]}
SHAREGPT = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}
MESSAGES = {"messages": [system("S"), user("Q"), assistant("A")]}
GOOD = {
    "flan": (FLAN, (user("Q"), assistant("b"))),
    "alpaca": (ALPACA, (system("S"), user("q"), assistant("r"), user("I\nX"), assistant("O"))),
    "sharegpt": (SHAREGPT, (user("Q"), assistant("A"))),
    "messages": (MESSAGES, (system("S"), user("Q"), assistant("A"))),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_row_becomes_a_conversation(name):
    row, messages = GOOD[name]
    record = to_record(name, row, "f:1")
    assert record.messages == messages
    assert record.where == "f:1"
    assert record.options == (("a", "b") if name == "flan" else None)


@pytest.mark.parametrize("name", GOOD)
def test_the_format_is_told_from_the_keys(name):
    row, messages = GOOD[name]
    assert detect(row, "f:1") == name
    assert to_record(detect(row, "f:1"), row, "f:1").messages == messages


def test_alpaca_without_input_is_the_instruction_alone():
    for row in ({"instruction": "I", "output": "O"}, {"instruction": "I", "input": "", "output": "O", "history": None}):
        assert to_record("alpaca", row, "f:1").messages == (user("I"), assistant("O"))


def test_alpaca_columns_are_renamed():
    columns = {"prompt": "p", "query": "q", "response": "r", "system": "s", "history": "h"}
    row = {"p": "I", "q": "X", "r": "O", "s": "S", "h": []}
    assert to_record("alpaca", row, "f:1", ColumnMap(columns)).messages == (system("S"), user("I\nX"), assistant("O"))
    assert detect(row, "f:1", ColumnMap(columns)) == "alpaca"


def test_sharegpt_columns_and_tags_are_renamed():
    tags = {"role_tag": "r", "content_tag": "c", "user_tag": "U", "assistant_tag": "A", "system_tag": "S"}
    row = {"talk": [{"r": "S", "c": "s"}, {"r": "U", "c": "q"}, {"r": "A", "c": "a"}]}
    record = to_record("sharegpt", row, "f:1", ColumnMap({"messages": "talk"}, tags))
    assert record.messages == (system("s"), user("q"), assistant("a"))


def test_sharegpt_reads_a_system_column():
    assert to_record("sharegpt", {**SHAREGPT, "system": "S"}, "f:1").messages[0] == system("S")


def turns(*pairs):
    return {"conversations": [{"from": role, "value": text} for role, text in pairs]}


BAD = {
    "missing field": ("flan", {"inputs": "Q"}, r"f:1: missing field 'targets' \(found: \['inputs'\]\)"),
    "mistyped field": ("flan", {"inputs": 3, "targets": "a"}, r"f:1: field 'inputs' must be a string, got int: 3"),
    "empty response": ("flan", {"inputs": "Q", "targets": " \n"}, r"f:1: empty response; fill it in or delete"),
    "target not an option": (
        "flan",
        {**FLAN, "targets": "c"},
        r"f:1: target 'c' is not among the options \['a', 'b'\]",
    ),
    "options no list": ("flan", {**FLAN, "options": "ab"}, r"f:1: field 'options' must be null or a list of strings"),
    "missing output": ("alpaca", {"instruction": "I"}, r"f:1: missing field 'output'"),
    "bad history": (
        "alpaca",
        {**ALPACA, "history": ["q"]},
        r"f:1: 'history' must be a list of \[prompt, response\] pairs",
    ),
    "history no list": ("alpaca", {**ALPACA, "history": 3}, r"f:1: 'history' must be a list"),
    "turns no list": ("sharegpt", {"conversations": "Q"}, r"f:1: field 'conversations' must be a list of objects"),
    "turns missing": ("sharegpt", {"text": "Q"}, r"f:1: missing field 'conversations'"),
    "unknown tag": ("sharegpt", turns(("user", "Q")), r"f:1: unknown role 'user'; expected one of \['human', 'gpt'"),
    "no turns": ("sharegpt", turns(), r"f:1: roles out of order: \[\]"),
    "no response": ("sharegpt", turns(("human", "Q")), r"f:1: roles out of order: \['user'\]"),
    "assistant first": ("sharegpt", turns(("gpt", "A"), ("human", "Q")), r"f:1: roles out of order"),
    "user twice": ("sharegpt", turns(("human", "Q"), ("human", "Q"), ("gpt", "A")), r"f:1: roles out of order"),
    "system late": ("messages", {"messages": [user("Q"), system("S"), assistant("A")]}, r"f:1: roles out of order"),
    "content no string": (
        "messages",
        {"messages": [user(None)]},
        r"f:1: field 'content' must be a string, got NoneType",
    ),
    "image": ("flan", {**FLAN, "image": "a.jpg"}, r"f:1: the row has a 'image' field, which is not read as 'flan'"),
    "video": ("sharegpt", {**SHAREGPT, "videos": ["a.mp4"]}, r"f:1: the row has a 'videos' field, which is not read"),
    "facts no list": ("flan", {**FLAN, "facts": "red"}, r"f:1: field 'facts' must be null or a list of strings"),
    "no facts": ("flan", {**FLAN, "facts": []}, r"f:1: field 'facts' must be null or a list of strings that say"),
    "images and no turn": (
        "cauldron",
        {"images": [{"bytes": b"x"}], "texts": []},
        r"f:1: 1 images and no turn of a user to put them in",
    ),
    "unknown format": ("chat", FLAN, r"unknown format in f:1: 'chat'; known: alpaca, cauldron, flan"),
    "unknown keys": (None, {"text": "Q"}, r"f:1: cannot tell the format from the keys \['text'\]; name one"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_refused_with_place_and_reason(case):
    name, row, reason = BAD[case]
    with pytest.raises(ValueError, match=reason):
        to_record(name or detect(row, "f:1"), row, "f:1")


@pytest.mark.parametrize("history", [["hi"], "hi", ["ab", "cd"], {"a": "b"}])
def test_a_text_is_no_pair_of_turns(history):
    with pytest.raises(ValueError, match=r"f:1: 'history' must be a list of \[prompt, response\] pairs"):
        to_record("alpaca", {**ALPACA, "history": history}, "f:1")
