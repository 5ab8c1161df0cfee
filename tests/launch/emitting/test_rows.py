"""Emitted rows are exactly the branch's training examples, however the mixture is divided, in a form that each tool reads."""

import json
from collections import Counter

import pytest

from merit_jax.core.types import Record
from merit_jax.data.chat_template import encode
from merit_jax.data.manifest import read_manifest
from merit_jax.data.records import read_entry
from merit_jax.data.sampler import BranchExamples
from merit_jax.launch.emitting import EMITTERS
from merit_jax.launch.emitting.conversations import first_with
from merit_jax.launch.emitting.emit import check_sayable
from merit_jax.launch.emitting.interface import BranchData, DataFile
from merit_jax.pipeline.partition_mixture import load_partition
from tests.launch.emitting import emitted
from tests.launch.emitting.cases import SETTINGS, VISION
from tests.support import tiny_qwen_vl, world
from tests.support.tiny_vision import picture

ROW = {"system": "Be kind.", "inputs": "Hi?", "targets": "Hello."}


def messages_of(row):
    """The conversation of a row of any of the tools' forms."""
    found = row["messages"] if "messages" in row else [*row["prompt"], *row["completion"]]
    return tuple({"role": one["role"], "content": one["content"]} for one in found)


def tokens(run, conversations):
    """How often each sequence of tokens comes."""
    found = (encode(run.tokenizer, messages, 96, where="")[0].tokens for messages in conversations)
    return Counter(tuple(ids.tolist()) for ids in found)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("random2", {}),
        ("examples2", {}),
        ("random2", {"partition.core": 0.25}),
        ("random2", {"partition.softness": 0.5, "mixture.max_train": 5}),
        ("soup2", {"mixture.max_train": 4}),
        ("examples2", {"mixture.weights": ("copy=2.5", "u*=0.5")}),
    ],
)
def test_the_rows_of_a_branch_are_its_examples(tmp_path, method, changes):
    run = emitted.split(tmp_path, method, **changes)
    folders = [emitted.written(run, tool) for tool in EMITTERS]
    for k, branch in enumerate(load_partition(run).branches):
        examples = BranchExamples(run.datasets, branch, run.config.seed)
        expected = Counter(tuple(example.tokens.tolist()) for example in examples)
        for folder in folders:
            rows = [row for file in emitted.rows(folder, k).values() for row in file]
            assert tokens(run, map(messages_of, rows)) == expected


def test_held_out_rows_are_in_no_branch_and_every_other_row_is_in_one(tmp_path):
    root = tmp_path / "data"
    world.mixture(root)
    taken = {name: {"file_name": f"{name}.train.jsonl", "held_out": 0.25} for name in ("copy", "upper", "first")}
    (root / "manifest.json").write_text(json.dumps(taken))
    run = emitted.split(tmp_path, **{"mixture.path": str(root / "manifest.json")})
    folder = emitted.written(run, "llamafactory")
    found = Counter(
        messages_of(row)[0]["content"] for k in (0, 1) for rows in emitted.rows(folder, k).values() for row in rows
    )
    source = Counter(
        json.loads(line)["inputs"] for name in taken for line in (root / f"{name}.train.jsonl").read_text().splitlines()
    )
    held_out = Counter(record.messages[0]["content"] for dataset in run.datasets for record in dataset.held_out)
    assert sum(held_out.values()) > 0
    assert found + held_out == source


def test_llamafactorys_list_is_a_manifest_of_the_same_rows(tmp_path):
    folder = emitted.written(emitted.split(tmp_path), "llamafactory")
    for k in (0, 1):
        entries = read_manifest(str(folder / f"branch-{k}" / "dataset_info.json"))
        again = {entry.name: [record.messages for record in read_entry(entry)] for entry in entries}
        assert again == {name: list(map(messages_of, rows)) for name, rows in emitted.rows(folder, k).items()}


def data(*conversations, tools=None, one_response=False):
    """The data of a branch with one dataset of these conversations."""
    records = [
        Record(tuple(turns), None, f"f.jsonl:{i}", None, tools) for i, turns in enumerate(conversations, start=1)
    ]
    file = DataFile("qa", "qa", records)
    return BranchData((file,), file.has_images, one_response)


def turn(role, content, **fields):
    return {"role": role, "content": content, **fields}


PICTURE = turn("user", [{"type": "image", "path": "/a.png"}, {"type": "text", "text": "What?"}])
ANSWER = turn("assistant", "A cat.")


def row(tool, given):
    file = given.files[0]
    return EMITTERS[tool].row(file, file.records[-1], given)


def test_images_are_where_each_tool_looks_for_them():
    given = data([turn("user", "Hi"), ANSWER], [PICTURE, ANSWER], one_response=True)
    assert row("llamafactory", given) == {
        "messages": [turn("user", "<image>What?"), ANSWER],
        "images": ["/a.png"],
    }
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert row("trl", given) == {
        "prompt": [turn("user", parts)],
        "completion": [turn("assistant", [{"type": "text", "text": "A cat."}])],
        "images": ["/a.png"],
    }
    file = given.files[0]
    assert EMITTERS["llamafactory"].row(file, file.records[0], given)["images"] == []


def test_trl_gets_rows_with_and_without_images_in_one_file_that_begins_with_an_image():
    hello = [turn("user", "Hi"), ANSWER]
    given = data(hello, hello, [PICTURE, ANSWER], hello)
    arranged = EMITTERS["trl"].arranged(given)
    assert [record.where for file in arranged.files for record in file.records] == [
        f"f.jsonl:{i}" for i in (3, 1, 2, 4)
    ]
    assert EMITTERS["trl"].arranged(data(hello, hello)) == data(hello, hello)
    assert EMITTERS["llamafactory"].arranged(given) == given


def test_a_vision_language_run_is_written_with_its_frozen_parts_and_pictures(tmp_path):
    tiny_qwen_vl.folder(tmp_path / "theta0", weights=tiny_qwen_vl.tensors())
    (tmp_path / "data").mkdir()
    picture(tmp_path / "data" / "a.png", 40, 40)
    for name in ("one", "two"):
        turns = [{"from": "human", "value": "<image>\nwhat is this ?"}, {"from": "gpt", "value": "red"}]
        world.write_rows(tmp_path / "data" / f"{name}.train.jsonl", [{"image": "a.png", "conversations": turns}] * 3)
    changes = {"train.trainable": ("^decoder/",), "train.image_tokens": 60}
    folder = emitted.written(emitted.split(tmp_path, **changes), "llamafactory")
    for k in (0, 1):
        found = emitted.settings(folder, k)
        assert (found["freeze_vision_tower"], found["freeze_language_model"]) == (True, False)
        ((_, rows),) = emitted.rows(folder, k).items()
        message = {"role": "user", "content": "<image>what is this ?"}
        expected = {"messages": [message, {"role": "assistant", "content": "red"}]}
        assert rows == [{**expected, "images": [str((tmp_path / "data" / "a.png").resolve())]}] * 3


def test_responses_that_are_not_trained_are_marked_where_a_tool_has_marks_and_refused_elsewhere():
    off = turn("assistant", "A dog.", train=False)
    given = data([turn("user", "What?"), off, turn("user", "No."), ANSWER])
    assert [message["train"] for message in row("axolotl", given)["messages"]] == [False, False, False, True]
    with pytest.raises(
        ValueError, match=r"--emit=llamafactory: branch 3: dataset 'qa': f\.jsonl:1 has a response that is"
    ):
        check_sayable(EMITTERS["llamafactory"], SETTINGS, given, 3, "llamafactory")
    assert row("trl", given._replace(one_response=True))["completion"] == [ANSWER]
    assert not list(EMITTERS["trl"].problems(SETTINGS, given._replace(one_response=True)))
    assert list(EMITTERS["trl"].problems(SETTINGS, given))


@pytest.mark.parametrize("tool", EMITTERS)
@pytest.mark.parametrize(
    ("turns", "tools", "said"),
    [
        ([turn("user", "Hi"), turn("assistant", "", tool_calls=[{}])], None, "a turn with 'tool_calls'"),
        ([turn("user", "Hi"), turn("assistant", "A", reasoning_content="B")], None, "a turn with 'reasoning_content'"),
        ([turn("developer", "Hi"), turn("user", "Hi"), ANSWER], None, "a turn of role 'developer'"),
        ([turn("user", "Hi"), ANSWER], ({"type": "function"},), r"functions \(tools\)"),
    ],
)
def test_a_row_that_is_more_than_a_conversation_of_texts_is_refused_by_name(tool, turns, tools, said):
    with pytest.raises(ValueError, match=rf"--emit={tool}: branch 0: dataset 'qa': f\.jsonl:1 has {said}"):
        check_sayable(EMITTERS[tool], SETTINGS, data(turns, tools=tools), 0, tool)


def test_a_text_that_llamafactory_takes_for_an_image_is_refused():
    given = data([turn("user", "What is <image> in HTML?"), ANSWER])
    with pytest.raises(ValueError, match="the text '<image>', which stands for a file there"):
        check_sayable(EMITTERS["llamafactory"], SETTINGS, given, 0, "llamafactory")
    assert not list(EMITTERS["trl"].problems(SETTINGS, given))


def test_a_branch_without_rows_is_refused():
    with pytest.raises(ValueError, match="branch 2 has no rows"):
        check_sayable(EMITTERS["trl"], SETTINGS, BranchData((), False, True), 2, "trl")


def test_vision_language_models_are_refused_where_a_tool_would_train_them_otherwise():
    given = data([PICTURE, ANSWER], one_response=True)
    assert "not written for Axolotl" in next(EMITTERS["axolotl"].problems(VISION, given))
    assert "freezes vision and projector" in next(EMITTERS["trl"].problems(VISION, given))
    assert not list(EMITTERS["trl"].problems(VISION._replace(frozen=()), given))
    assert not list(EMITTERS["llamafactory"].problems(VISION, given))
    assert "no template" in next(EMITTERS["llamafactory"].problems(VISION._replace(family="idefics3"), given))


def test_only_the_first_bad_row_of_a_dataset_is_named():
    given = data([turn("user", "Hi"), ANSWER], [turn("user", "a"), ANSWER], [turn("user", "b"), ANSWER])
    assert len(list(first_with(given, lambda record: record.where[-1] > "1" and "it"))) == 1
