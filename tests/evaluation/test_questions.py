"""A question's id is that of its content, in whatever file it is."""

import json

import pytest

from merit_jax.data.records import read_records
from merit_jax.evaluation.questions import question_ids
from tests.support import world

ROWS = [
    {"inputs": "2 + 2?", "targets": "4"},
    {"inputs": "2 + 2?", "targets": "5"},
    {"inputs": "2 + 2?", "targets": "4", "options": ["4", "5"]},
    {"inputs": "2 + 2?", "targets": "4", "options": ["5", "4"]},
]


def ids(path, rows):
    path.parent.mkdir(exist_ok=True)
    world.write_rows(path, rows)
    return question_ids(read_records(str(path)))


def test_different_questions_have_different_ids_and_the_same_one_the_same(tmp_path):
    found = ids(tmp_path / "a.jsonl", ROWS)
    assert len(set(found)) == 4
    assert all(len(one) == 12 and set(one) <= set("0123456789abcdef") for one in found)
    assert ids(tmp_path / "there/b.jsonl", ROWS[::-1]) == found[::-1]


def test_repeated_questions_are_told_apart(tmp_path):
    first, *_ = ids(tmp_path / "a.jsonl", ROWS)
    assert ids(tmp_path / "b.jsonl", [ROWS[0], ROWS[0], ROWS[1], ROWS[0]])[::3] == [first, f"{first}-3"]


def picture(folder, name, content):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a dot"}]
    (folder / "seen.json").write_text(json.dumps([{"image": name, "conversations": turns}]))
    return read_records(str(folder / "seen.json"))


def test_an_image_counts_by_its_content(tmp_path):
    here, there = picture(tmp_path / "a", "1.png", b"dot"), picture(tmp_path / "b", "2.png", b"dot")
    other = picture(tmp_path / "c", "1.png", b"dash")
    assert question_ids(here) == question_ids(there) != question_ids(other)


def test_a_missing_image_is_named(tmp_path):
    records = picture(tmp_path / "a", "1.png", b"dot")
    (tmp_path / "a/1.png").unlink()
    with pytest.raises(ValueError, match=r"seen\.json\[0\]: image .*1\.png cannot be read"):
        question_ids(records)
