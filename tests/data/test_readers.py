"""Every row comes with its place, and every bad one with the reason."""

import hashlib
import json
import pickle
import re

import pytest

from merit_jax.data.readers import files_digest, read_rows
from merit_jax.data.rows import RowError

ROWS = [{"inputs": "a\u2028b", "targets": "é"}, {"inputs": "c", "targets": "d"}]


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_json_lines_are_numbered_from_one_and_blank_lines_are_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", "\ufeff" + lines(ROWS[:1]) + "\n" + lines(ROWS[1:]).strip())
    assert list(read_rows(path)) == [(f"{path}:1", ROWS[0]), (f"{path}:3", ROWS[1])]


def test_a_json_list_is_indexed_from_zero(tmp_path):
    path = write(tmp_path / "a.json", " " + json.dumps(ROWS, indent=1))
    assert list(read_rows(path)) == [(f"{path}[0]", ROWS[0]), (f"{path}[1]", ROWS[1])]


def test_a_json_file_of_lines_is_read_as_lines(tmp_path):
    path = write(tmp_path / "a.json", lines(ROWS))
    assert list(read_rows(path)) == [(f"{path}:1", ROWS[0]), (f"{path}:2", ROWS[1])]


def test_parquet_rows_are_those_of_json(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert list(read_rows(str(path))) == [(f"{path}[0]", ROWS[0]), (f"{path}[1]", ROWS[1])]


BAD = {
    "truncated line": (
        "a.jsonl",
        lines(ROWS)[:-3],
        r"a.jsonl:2: not a JSON object \(Unterminated string.*mend or delete",
    ),
    "not JSON": (
        "a.jsonl",
        lines(ROWS) + "inputs,targets\n",
        r"a.jsonl:3: not a JSON object \(Expecting value at column 1",
    ),
    "not an object": ("a.jsonl", lines(ROWS) + "[1]\n", r"a.jsonl:3: expected a JSON object, got list"),
    "invalid UTF-8": ("a.jsonl", lines(ROWS).encode() + b'{"a": "\xff"}\n', r"a.jsonl:3: invalid UTF-8 at byte 7"),
    "empty file": ("a.jsonl", "\n", r"a.jsonl: no rows; give a file"),
    "empty list": ("a.json", "[]", r"a.json: no rows"),
    "truncated list": ("a.json", json.dumps(ROWS, indent=1)[:-3], r"a.json:\d+: not JSON .*may be cut off"),
    "list of strings": ("a.json", '["a"]', r"a.json\[0\]: expected a JSON object, got str"),
    "unknown type": ("a.csv", "a,b", r"a.csv: unknown file type '.csv'; convert it to one of .jsonl, .ndjson, .json"),
    "no parquet": ("a.parquet", "PAR1", r"a.parquet: not readable as parquet after 0 rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_place_and_reason(tmp_path, case):
    name, data, reason = BAD[case]
    with pytest.raises(ValueError, match=reason):
        list(read_rows(write(tmp_path / name, data)))


RECORD = '{"inputs": "a", "targets": "b"}'
CONTAINERS = {
    "a list over lines": (
        "a.jsonl",
        "[\n " + RECORD + "\n]",
        "a.jsonl: a JSON list over several lines; rename the file to .json",
    ),
    "a list of lines": (
        "a.jsonl",
        "[" + RECORD + ",\n" + RECORD + "]",
        "a.jsonl: a JSON list over several lines; rename",
    ),
    "a list in a line": (
        "a.jsonl",
        "[" + RECORD + "]",
        r"a.jsonl:1: expected a JSON object, got list; the list holds records: write",
    ),
    "a conversation in a line": (
        "a.jsonl",
        '[{"from": "human", "value": "a"}]',
        'the list is a conversation: write .* {"conversations',
    ),
    "conversations": (
        "a.json",
        '[[{"from": "human", "value": "a"}]]',
        r"a.json\[0\]: .* got list; the list is a conversation",
    ),
    "a record over lines": (
        "a.jsonl",
        json.dumps(ROWS[0], indent=1),
        "a.jsonl: a JSON object over several lines, not one in each; write each record on one line",
    ),
    "records over lines": (
        "a.json",
        2 * (json.dumps(ROWS[0], indent=1) + "\n"),
        "a.json: a JSON object over several lines",
    ),
    "a list in an object": (
        "a.json",
        json.dumps({"version": 1, "data": ROWS}, indent=1),
        "a.json: .* over several lines, .*; the object's 'data' holds 2 records: write that list alone to a .json file",
    ),
    "columns over lines": (
        "a.json",
        json.dumps({"inputs": ["a", "b"], "targets": ["c", "d"]}, indent=1),
        r"a.json: .*; the object holds columns: .* to_json\(orient='records', lines=True\)",
    ),
    "a comma": ("a.jsonl", RECORD + ",\n", "a.jsonl:1: a comma follows the object; delete it, or"),
    "two objects": ("a.jsonl", RECORD + RECORD, "a.jsonl:1: several objects in one line; write each"),
    "carriage returns": (
        "a.jsonl",
        f"{RECORD}\r{RECORD}\r",
        r"a.jsonl:1: several objects in one line \(its lines end in a carriage",
    ),
    "UTF-16": ("a.jsonl", lines(ROWS).encode("utf-16"), "a.jsonl: the text is UTF-16; re-encode the file as UTF-8"),
    "UTF-16 without a mark": (
        "a.json",
        json.dumps(ROWS).encode("utf-16-le"),
        "a.json: the text is UTF-16-LE; re-encode",
    ),
    "UTF-32": ("a.json", json.dumps(ROWS).encode("utf-32"), "a.json: the text is UTF-32; re-encode"),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_a_file_that_is_no_record_a_line_is_told_once_with_how_to_convert_it(tmp_path, case):
    name, data, reason = CONTAINERS[case]
    errors = []
    assert not list(read_rows(write(tmp_path / name, data), errors.append))
    (error,) = errors
    assert re.search(reason, str(error)), error


def test_a_first_line_that_is_damaged_does_not_hide_the_others(tmp_path):
    path, errors = write(tmp_path / "a.jsonl", '{"inputs": "a", "tar\n' + lines(ROWS)), []
    assert [row for _, row in read_rows(path, errors.append)] == ROWS
    assert [error.where for error in errors] == [f"{path}:1"]


@pytest.mark.parametrize("text", ["\ufeff" + lines(ROWS), lines(ROWS).replace("\n", "\r\n"), "\r\n\n" + lines(ROWS)])
def test_marks_and_line_ends_of_other_systems_are_read(tmp_path, text):
    assert [row for _, row in read_rows(write(tmp_path / "a.jsonl", text))] == ROWS


def test_odd_characters_of_a_text_are_kept(tmp_path):
    row = {"inputs": "a\u2028b\u0085c\0", "targets": "x\u2029y"}
    for name, text in {"a.jsonl": json.dumps(row, ensure_ascii=False), "b.json": json.dumps([row])}.items():
        assert [found for _, found in read_rows(write(tmp_path / name, text))] == [row]


STRANGE_ITEMS = {
    "NaN": ('{"a": NaN}', "NaN is no JSON; write null or a number"),
    "infinity": ('{"a": [-Infinity]}', "-Infinity is no JSON"),
    "twice": ('{"a": 1, "a": 2}', r"duplicate names \['a'\]"),
    "half a character": ('{"a": "\\ud83d"}', "half of a surrogate pair"),
    "depth": ('{"a": ' + "[" * 150 + "]" * 150 + "}", "nested more than 100 deep"),
    "endless number": ('{"a": ' + "1" * 5000 + "}", "limit"),
    "text": ('"a"', "expected a JSON object, got str"),
}


@pytest.mark.parametrize("case", STRANGE_ITEMS)
def test_a_strange_item_of_a_list_is_named_and_the_others_are_read(tmp_path, case):
    item, reason = STRANGE_ITEMS[case]
    first, last = (json.dumps(row) for row in ROWS)
    path, errors = write(tmp_path / "a.json", f"[{first},\n {item} ,{last}]\n"), []
    assert list(read_rows(path, errors.append)) == [(f"{path}[0]", ROWS[0]), (f"{path}[2]", ROWS[1])]
    (error,) = errors
    assert error.where == f"{path}[1]"
    assert re.search(reason, error.reason), error


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("", r"a.json:3: not JSON \(Expecting ',' delimiter at column 1\); the file may be cut off"),
        (", ]", "a.json:2: not JSON .Expecting value"),
        ("] []", "a.json:2: not JSON .Extra data at column 3"),
        (' {"a": NaN', "a.json:2: not JSON .Expecting ',' delimiter"),
    ],
)
def test_rows_before_the_end_of_a_damaged_list_are_read(tmp_path, end, reason):
    path, errors = write(tmp_path / "a.json", f"[{json.dumps(ROWS[0])}\n{end}\n"), []
    assert [row for _, row in read_rows(path, errors.append)] == ROWS[:1]
    (error,) = errors
    assert re.search(reason, str(error)), error


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    for folder in (tmp_path, tmp_path / "a.jsonl"):
        with pytest.raises(ValueError, match=r": a folder, not a file; name a file in it, or"):
            list(read_rows(str(folder)))


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"k" * 10**6: "\ud800"}),
        '{"a": 1, "' + "k" * 10**6 + '": 1, "' + "k" * 10**6 + '": 2}',
        '"' + "x" * 10**6,
    ],
)
def test_an_error_does_not_print_the_data(tmp_path, line):
    errors = []
    assert not list(read_rows(write(tmp_path / "a.jsonl", line), errors.append))
    assert [len(str(error)) < 1000 for error in errors] == [True]


def test_the_error_of_a_row_survives_another_process():
    error = pickle.loads(pickle.dumps(RowError("a.jsonl:1", "x" * 10_000)))
    assert (error.where, len(error.reason)) == ("a.jsonl:1", 605)
    assert str(error) == f"a.jsonl:1: {error.reason}"


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.jsonl: no such file"):
        list(read_rows(str(tmp_path / "nowhere.jsonl")))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'merit-jax\[parquet\]'"):
        list(read_rows(write(tmp_path / "a.parquet", "")))


def test_collected_errors_do_not_stop_the_reading(tmp_path):
    errors = []
    path = write(tmp_path / "a.jsonl", "{\n" + lines(ROWS) + "3\n")
    assert [row for _, row in read_rows(path, errors.append)] == ROWS
    assert [str(error).split(": ")[0] for error in errors] == [f"{path}:1", f"{path}:4"]


def test_the_digest_is_the_files_sha256(tmp_path):
    assert files_digest([write(tmp_path / "a", "abc")]) == hashlib.sha256(b"abc").hexdigest()


STRANGE = {
    "depth": (b"[" * 100_000, "nested more than 100 deep"),
    "some depth": (b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", "nested more than 100 deep"),
    "twice": (b'{"a": 1, "a": 2}', r"duplicate names \['a'\]"),
    "no number": (b'{"a": NaN}', "NaN is no JSON"),
    "endless number": (b'{"a": ' + b"1" * 5000 + b"}", "limit"),
    "half a character": (b'{"a": "\\ud83d"}', "half of a surrogate pair at character 0"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_strange_line_is_named_and_the_others_are_read(tmp_path, case):
    line, reason = STRANGE[case]
    path, errors = write(tmp_path / "a.jsonl", line + b"\n" + lines(ROWS).encode()), []
    assert [row for _, row in read_rows(path, errors.append)] == ROWS
    (error,) = errors
    assert re.match(rf".*a.jsonl:1: .*{reason}", str(error)), error
    with pytest.raises(ValueError, match=reason):
        list(read_rows(write(tmp_path / "a.json", b"[" + line + b"]")))


def test_a_whole_character_of_two_halves_is_read(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": "\\ud83d\\ude00"}')
    assert [row for _, row in read_rows(path)] == [{"a": "😀"}]


@pytest.mark.parametrize("name", ["a\0.jsonl", "x" * 5000 + ".jsonl"])
def test_a_name_that_no_file_can_have_is_no_file(name):
    with pytest.raises(ValueError, match="no such file"):
        list(read_rows(name))
