"""Rows that cannot be used: an error, or left out on request, each listed with its place and reason; nothing else changes."""

import json

import pytest

from merit_jax.data.mixture import load_mixture
from tests.support.tiny_tokenizer import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def good(text):
    return json.dumps({"inputs": text, "targets": "yes"})


BAD = {2: "{", 4: json.dumps({"inputs": "no target"}), 5: "[1]", 7: json.dumps({"inputs": "empty", "targets": ""})}
"""Line -> a row that cannot be used, each of its own kind."""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.train.jsonl").write_text("\n".join(BAD.get(n) or good(f"a{n}") for n in range(1, 10)) + "\n")
    (tmp_path / "a.test.jsonl").write_text("\n".join([good("A1"), "{", good("A3")]) + "\n")
    (tmp_path / "b.train.jsonl").write_text("\n".join(good(f"b{n}") for n in range(4)) + "\n")
    return tmp_path


def load(folder, pattern="*.train.jsonl", **options):
    given = {"max_length": 64, "seed": 0, "on_error": "skip", **options}
    return load_mixture(f"{folder}/{pattern}", TOKENIZER, **given)


def places(dataset):
    return [row.where.rpartition("/")[2] for row in dataset.report.skipped]


def prompts(dataset):
    return [TOKENIZER.decode(example.tokens) for example in dataset.train]


def test_every_row_that_cannot_be_used_is_listed_and_the_others_stay(folder):
    a, b = load(folder)
    assert sorted(places(a)) == ["a.test.jsonl:2", *(f"a.train.jsonl:{n}" for n in sorted(BAD))]
    assert all(row.reason and row.placed for row in a.report.skipped)
    assert [any(f"a{n}" in prompt for prompt in prompts(a)) for n in range(1, 10)] == [
        n not in BAD for n in range(1, 10)
    ]
    assert (len(a.train), len(a.held_out), len(b.train), b.report.skipped) == (5, 2, 4, ())


def test_the_default_stops_at_the_first(folder):
    with pytest.raises(ValueError, match=r"a\.train\.jsonl:2: not a JSON object"):
        load(folder, on_error="stop")


def test_a_cached_dataset_lists_the_same_rows(folder, tmp_path):
    fresh, again = (load(folder, cache_dir=tmp_path / "cache")[0] for _ in range(2))
    assert fresh.report == again.report
    assert (prompts(fresh), fresh.held_out) == (prompts(again), again.held_out)
    with pytest.raises(ValueError, match=r"a\.train\.jsonl:2: not a JSON object"):
        load(folder, on_error="stop", cache_dir=tmp_path / "cache")


def test_a_damaged_list_is_refused(folder, tmp_path):
    load(folder, cache_dir=tmp_path / "cache")
    for path in (tmp_path / "cache").glob("*/skipped.json"):
        path.write_text("[[1")
    with pytest.raises(ValueError, match=r"skipped\.json: damaged token cache .* delete "):
        load(folder, cache_dir=tmp_path / "cache")


def test_what_is_not_tokenised_is_not_trained_on_and_listed(folder, caplog):
    (folder / "a.train.jsonl").write_text("\n".join([good("fits"), good("x" * 500)]) + "\n")
    a, _ = load(folder, max_length=80)
    assert (len(a.train), places(a)) == (1, ["a.test.jsonl:2", "a.train.jsonl:2"])
    assert "dataset 'a': 2 rows skipped, 1 kept to train on; first" in caplog.text


def test_a_split_is_of_the_rows_that_can_be_used(folder):
    (folder / "m.json").write_text(json.dumps({"a": {"file_name": "a.train.jsonl", "held_out": 2}}))
    fresh, again = (load(folder, "m.json", cache_dir=folder / "cache")[0] for _ in range(2))
    assert (len(fresh.train), len(fresh.held_out)) == (3, 2)
    assert (fresh.held_out, fresh.report) == (again.held_out, again.report)
    assert len(fresh.report.skipped) == len(BAD)


@pytest.mark.parametrize("held_out", [0, 1])
def test_a_dataset_that_ends_empty_stops(folder, held_out):
    (folder / "c.jsonl").write_text("{\n[1]\n")
    (folder / "m.json").write_text(json.dumps({"c": {"file_name": "c.jsonl", "held_out": held_out}}))
    with pytest.raises(
        ValueError, match=r"dataset 'c': none of its training rows can be used \(2 skipped; first .*c\.jsonl:1: not a"
    ):
        load(folder, "m.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", '[{"inputs": "a", "targets": "b"}, {"inp', r"c\.json:1: not JSON .* the file may be cut off"),
        ("c.jsonl", "", r"c\.jsonl: no rows; give a file"),
        ("c.jsonl", '{\n "data": []\n}\n', r"c\.jsonl: a JSON object over several lines"),
        ("c.parquet", "no parquet", r"c\.parquet: not readable as parquet after 0 rows"),
        ("c.jsonl", None, r"c\.jsonl: no such file"),
    ],
)
def test_a_file_that_is_lost_as_a_whole_stops(folder, name, content, message):
    if content is not None:
        (folder / name).write_text(content)
    (folder / "m.json").write_text(json.dumps({"c": {"file_name": name}}))
    with pytest.raises(ValueError, match=message):
        load(folder, "m.json")


def test_a_column_that_no_row_has_stops(folder):
    (folder / "m.json").write_text(json.dumps({"b": {"file_name": "b.train.jsonl", "columns": {"system": "nowhere"}}}))
    with pytest.raises(ValueError, match="nowhere"):
        load(folder, "m.json")


def test_rows_that_say_no_dataset_are_listed_once(folder):
    rows = [{"inputs": f"{n}", "targets": "yes", "task": "xy"[n % 2]} for n in range(6)]
    lines = [*map(json.dumps, rows[:3]), "{", json.dumps({"inputs": "7", "targets": "no"}), *map(json.dumps, rows[3:])]
    (folder / "all.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "m.json").write_text(json.dumps({"all": {"file_name": "all.jsonl", "group_by": "task"}}))
    x, y = load(folder, "m.json")
    assert (len(x.train), len(y.train)) == (3, 3)
    assert [(row.where.rpartition("/")[2], row.placed) for row in x.report.skipped] == [
        ("all.jsonl:4", False),
        ("all.jsonl:5", False),
    ]
    assert y.report.skipped == ()
    (only,) = load(folder, "m.json", include=["y"])
    assert len(only.report.skipped) == 2
