"""Every row comes with its place, and every bad one with the reason."""

import hashlib
import json
import re

import pytest

from merit_jax.data.readers import files_digest, read_rows

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
