"""`launch.validate` counts what is good and names all that is bad."""

import io
import json

import pytest
from rich.console import Console

from launch import validate
from models.pretrained.processor import load_processor
from tests.support import tiny_vision
from tests.support.tiny_tokenizer import CHATML, tiny_tokenizer

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
    counts, errors = validate.validate(f"{folder}/*.train.jsonl", tiny_tokenizer(), include=(), max_length=200, seed=0)
    assert [count[:4] for count in counts] == [("a", 2, 1, 0), ("b", 1, 0, 0), ("c", 0, 0, 0)]
    places = [str(error).split(": ")[0].removeprefix(f"{folder}/") for error in errors]
    assert places == ["a.train.jsonl:2", "a.test.jsonl:2", "a.test.jsonl:3", "c.train.jsonl:1", "c.train.jsonl"]


def test_the_table_ends_with_totals(folder):
    counts, _ = validate.validate(f"{folder}/*.train.jsonl", tiny_tokenizer(), include=(), max_length=200, seed=0)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(validate.table(counts))
    totals = console.export_text().splitlines()[-2]
    assert [cell.strip() for cell in totals.split("│")[1:-1]] == [
        "3 datasets",
        "3",
        "1",
        "0",
        str(sum(count.supervised for count in counts)),
        str(sum(count.tokens for count in counts)),
        "0",
        "0",
        "0",
    ]


def test_bad_records_are_printed_up_to_a_number_and_all_counted(folder, capsys):
    found = validate.validate(f"{folder}/*.train.jsonl", tiny_tokenizer(), include=["a", "c"], max_length=200, seed=0)
    validate.print_findings(*found, 2)
    out = capsys.readouterr().out
    assert f"{folder}/a.train.jsonl:2: missing field 'targets'" in out
    assert f"{folder}/a.test.jsonl:2: empty response" in out
    assert f"{folder}/c.train.jsonl" not in out
    assert "5 bad records, images or files, 2 shown" in out


def test_every_image_is_opened_and_each_bad_one_told_once(tmp_path):
    processor = load_processor(tiny_vision.folder(tmp_path / "model"))
    good = tiny_vision.picture(tmp_path / "good.png", 16, 24)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-40])
    (tmp_path / "empty.png").touch()
    rows = [
        tiny_vision.llava("good.png"),
        tiny_vision.llava(["cut.png", "gone.png"]),
        tiny_vision.llava("cut.png"),
        {"conversations": tiny_vision.llava()["conversations"]},
    ]
    (tmp_path / "a.train.json").write_text(json.dumps(rows))
    (tmp_path / "a.test.json").write_text(json.dumps([tiny_vision.llava("empty.png"), tiny_vision.llava("good.png")]))
    (tmp_path / "b.train.json").write_text(json.dumps([tiny_vision.llava("gone.png"), tiny_vision.llava("good.png")]))
    counts, errors = validate.validate(
        f"{tmp_path}/*.train.json",
        processor.tokenizer,
        include=(),
        max_length=400,
        seed=0,
        reader=processor.images,
    )
    assert [(c.name, c.rows, c.held_out, c.images) for c in counts] == [("a", 2, 1, 1), ("b", 1, 0, 1)]
    reasons = [
        r"a.train.json[1]: {}/cut.png: damaged or truncated image",
        r"a.train.json[1]: {}/gone.png: no such image; correct the path or delete the record",
        r"a.test.json[0]: {}/empty.png: the image has 0 bytes; write the file again or delete the record",
    ]
    assert len(errors) == 3
    for error, reason in zip(errors, reasons, strict=True):
        assert str(error).startswith(f"{tmp_path}/{reason.format(tmp_path)}")


def test_a_text_model_refuses_images_by_line(tmp_path):
    tiny_vision.picture(tmp_path / "good.png", 16, 24)
    (tmp_path / "a.json").write_text(json.dumps([tiny_vision.llava("good.png")]))
    _, errors = validate.validate(f"{tmp_path}/*.json", tiny_tokenizer(), include=(), max_length=400, seed=0)
    assert [str(error) for error in errors] == [
        f"{tmp_path}/a.json[0]: 1 images in the conversation, and the model reads text alone; leave the record out, or take a "
        "vision-language model"
    ]


def test_datasets_with_the_same_rows_are_named_whatever_their_files_and_formats(tmp_path, capsys):
    rows = [{"inputs": f"q{i}", "targets": "yes"} for i in range(3)]
    alpaca = [{"instruction": row["inputs"], "input": "", "output": row["targets"]} for row in rows]
    files = {
        "first": rows,
        "shuffled": [*rows[1:], rows[0]],
        "alpaca": alpaca,
        "longer": [*rows, rows[0]],
        "other": [*rows[:2], {"inputs": "q2", "targets": "no"}],
    }
    for name, lines in files.items():
        (tmp_path / f"{name}.train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = validate.validate(f"{tmp_path}/*.train.jsonl", tiny_tokenizer(), include=(), max_length=200, seed=0)
    assert [[each.name for each in group] for group in validate.duplicates(found[0])] == [
        ["alpaca", "first", "shuffled"]
    ]
    assert not found[1]
    validate.print_findings(*found, 5)
    said = capsys.readouterr().out
    assert (
        "alpaca and first and shuffled have the same 3 training examples, which count once for each; leave all" in said
    )


@pytest.mark.parametrize("option", [{"held_out": 0.25}, {"num_samples": 6}])
def test_copies_that_hold_out_or_draw_others_of_their_examples_are_named(tmp_path, capsys, option):
    rows = [{"inputs": f"q{i}", "targets": "yes"} for i in range(12)]
    lines = [json.dumps(row) + "\n" for row in rows]
    others = [line.replace("yes", "no") for line in lines]
    for name, content in {"a": lines, "b": lines, "c": others}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(content))
    manifest = {name: {"file_name": f"{name}.jsonl", **option} for name in "abc"}
    (tmp_path / "mixture.json").write_text(json.dumps(manifest))
    found = validate.validate(f"{tmp_path}/mixture.json", tiny_tokenizer(), include=(), max_length=200, seed=0)
    validate.print_findings(*found, 5)
    said = capsys.readouterr().out
    assert "a and b are copies of the same data, each with training examples of its own" in said
    assert said.count("leave all but one out") == 1


def test_a_copy_in_another_order_with_its_own_held_out_rows_is_named(tmp_path):
    rows = [{"inputs": f"q{i}", "targets": "yes"} for i in range(12)]
    for name, content in {"a": rows, "b": rows[::-1]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    manifest = {name: {"file_name": f"{name}.json", "held_out": 3} for name in "ab"}
    (tmp_path / "mixture.json").write_text(json.dumps(manifest))
    counts, _ = validate.validate(f"{tmp_path}/mixture.json", tiny_tokenizer(), include=(), max_length=200, seed=0)
    assert [[each.name for each in group] for group in validate.duplicates(counts)] == [["a", "b"]]
    assert counts[0].content != counts[1].content


def test_the_same_text_with_other_images_of_the_same_names_is_no_copy(tmp_path):
    processor = load_processor(tiny_vision.folder(tmp_path / "model"))
    for name, size in (("a", (16, 24)), ("b", (24, 16))):
        (tmp_path / name).mkdir()
        tiny_vision.picture(tmp_path / name / "x.png", *size)
        (tmp_path / name / f"{name}.json").write_text(json.dumps([tiny_vision.llava("x.png")]))
    counts, errors = validate.validate(
        f"{tmp_path}/[ab]/*.json", processor.tokenizer, include=(), max_length=400, seed=0, reader=processor.images
    )
    assert not errors
    assert len(counts) == 2
    assert not validate.duplicates(counts)


def test_the_same_images_in_other_files_are_duplicates_and_other_images_are_not(tmp_path):
    processor = load_processor(tiny_vision.folder(tmp_path / "model"))
    good = tiny_vision.picture(tmp_path / "good.png", 16, 24)
    (tmp_path / "copy.png").write_bytes(good.read_bytes())
    tiny_vision.picture(tmp_path / "tall.png", 24, 16)
    for name, image in (("a", "good.png"), ("b", "copy.png"), ("c", "tall.png")):
        (tmp_path / f"{name}.json").write_text(json.dumps([tiny_vision.llava(image)]))
    counts, errors = validate.validate(
        f"{tmp_path}/*.json", processor.tokenizer, include=(), max_length=400, seed=0, reader=processor.images
    )
    assert not errors
    assert [[each.name for each in group] for group in validate.duplicates(counts)] == [["a", "b"]]


def test_a_template_that_ends_no_response_is_an_error_and_less_is_told(tmp_path, capsys):
    template = CHATML.replace(
        "<|im_end|>\n' }}{% endfor %}",
        "' + ('' if 'open' in message['content'] else '<|im_end|>') + '\n' }}{% endfor %}",
    )
    for name, answers in (("all", ["open", "open"]), ("some", ["open", "yes"])):
        rows = [json.dumps({"inputs": "q", "targets": answer}) + "\n" for answer in answers]
        (tmp_path / f"{name}.train.jsonl").write_text("".join(rows))
    counts, errors = validate.validate(
        f"{tmp_path}/*.train.jsonl", tiny_tokenizer(template), include=(), max_length=200, seed=0
    )
    assert [(each.name, each.unended, each.unseen) for each in counts] == [("all", 2, 0), ("some", 1, 0)]
    (error,) = errors
    assert str(error).startswith("dataset 'all': 2 of 2 training rows have a response that ends in no special token")
    validate.print_findings(counts, errors, 5)
    said = capsys.readouterr().out
    assert said.count("dataset 'all': 2 of 2 training rows") == said.count("dataset 'some': 1 of 2 training rows") == 1
