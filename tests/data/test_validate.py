"""`launch.validate` counts what is good and names all that is bad."""

import io
import json

import pytest
from absl.testing import flagsaver
from rich.console import Console

from launch import validate
from tests.data.tiny_tokenizer import tiny_tokenizer

GOOD = {"inputs": "q", "targets": "yes"}
LONG = {"inputs": "q" * 200, "targets": "yes"}


@pytest.fixture
def folder(tmp_path):
    rows = {
        "a.train": [GOOD, {"inputs": "q"}, GOOD],
        "a.test": [GOOD, {"inputs": "q", "targets": ""}, LONG],
        "b.train": [GOOD],
    }
    for name, lines in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "c.train.jsonl").write_text('{"inputs": "q"')
    return tmp_path


def test_every_dataset_is_read_to_its_end(folder):
    datasets, errors = validate.validate(
        f"{folder}/*.train.jsonl", tiny_tokenizer(), include=(), max_length=200, seed=0
    )
    assert [(d.name, d.report.rows, len(d.held_out)) for d in datasets] == [("a", 2, 1), ("b", 1, 0), ("c", 0, 0)]
    places = [str(error).split(": ")[0].removeprefix(f"{folder}/") for error in errors]
    assert places == ["a.train.jsonl:2", "a.test.jsonl:2", "a.test.jsonl:3", "c.train.jsonl:1", "c.train.jsonl"]


def test_the_table_ends_with_totals(folder):
    datasets, _ = validate.validate(f"{folder}/*.train.jsonl", tiny_tokenizer(), include=(), max_length=200, seed=0)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(validate.table(datasets))
    totals = console.export_text().splitlines()[-2]
    tokens = sum(d.report.total_tokens for d in datasets)
    supervised = sum(d.report.tokens for d in datasets)
    assert [cell.strip() for cell in totals.split("│")[1:-1]] == [
        "3 datasets",
        "3",
        "1",
        str(supervised),
        str(tokens),
        "0",
    ]


@pytest.mark.parametrize(("include", "code"), [("b", 0), ("a,c", 1)])
def test_the_exit_code_tells_bad_from_good(folder, capsys, include, code):
    tiny_tokenizer().save_pretrained(folder / "tokenizer")
    with flagsaver.flagsaver():
        validate.FLAGS(
            [
                "validate",
                f"--mixture={folder}/*.train.jsonl",
                f"--tokenizer={folder}/tokenizer",
                f"--include={include}",
                "--max_length=200",
                "--max_bad=2",
            ]
        )
        assert validate.main([]) == code
    out = capsys.readouterr().out
    if code:
        assert f"{folder}/a.train.jsonl:2: missing field 'targets'" in out
        assert f"{folder}/a.test.jsonl:2: empty response" in out
        assert f"{folder}/c.train.jsonl" not in out
        assert "5 bad records or files, 2 shown" in out
