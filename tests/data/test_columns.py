"""A column that a manifest names is in the rows."""

import json

import pytest

from merit_jax.data.column_map import ColumnMap
from merit_jax.data.manifest import Entry
from merit_jax.data.records import read_entry

DOLLY = {"instruction": "Q", "context": "", "response": "A"}


def entry(path, columns, *rows, **fields):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Entry("d", (str(path),), layout=ColumnMap(columns), **fields)


@pytest.mark.parametrize("part", ["query", "system", "tools", "images", "history"])
def test_a_column_that_no_row_has_is_told_once(tmp_path, part):
    errors = []
    read_entry(entry(tmp_path / "a.jsonl", {"response": "response", part: "contxt"}, DOLLY, DOLLY), errors.append)
    (error,) = errors
    assert f"a.jsonl: `columns` in the manifest names 'contxt' as {part!r}, which no row has" in str(error)
    assert "(found: ['context', 'instruction', 'response'])" in str(error)


def test_a_column_that_some_rows_have_is_read(tmp_path):
    columns = {"response": "response", "query": "context", "system": "persona"}
    rows = {"instruction": "Q", "response": "A"}, {**DOLLY, "context": "C", "persona": "S"}
    one, two = read_entry(entry(tmp_path / "a.jsonl", columns, *rows))
    assert [m["content"] for m in one.messages] == ["Q", "A"]
    assert [m["content"] for m in two.messages] == ["S", "Q\nC", "A"]


def test_a_column_of_another_group_is_enough(tmp_path):
    rows = {**DOLLY, "task": "d"}, {**DOLLY, "task": "e", "persona": "S"}
    columns = {"response": "response", "query": "context", "system": "persona"}
    assert len(read_entry(entry(tmp_path / "a.jsonl", columns, *rows, group_by="task"))) == 1
