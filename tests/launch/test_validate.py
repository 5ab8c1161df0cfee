"""`merit validate` counts what is good and names all that is bad."""

import io
import json

import pytest
from PIL import Image
from rich.console import Console

from merit_jax.launch import validate
from merit_jax.models.pretrained.processor import load_processor
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
    counts, errors, _ = validate.validate(
        f"{folder}/*.train.jsonl", tiny_tokenizer(), include=(), max_length=200, seed=0
    )
    assert [count[:4] for count in counts] == [("a", 2, 1, 0), ("b", 1, 0, 0), ("c", 0, 0, 0)]
    places = [str(error.error).split(": ")[0].removeprefix(f"{folder}/") for error in errors]
    assert places == ["a.train.jsonl:2", "a.test.jsonl:2", "a.test.jsonl:3", "c.train.jsonl:1"]


def test_the_table_ends_with_totals(folder):
    counts, _, _ = validate.validate(f"{folder}/*.train.jsonl", tiny_tokenizer(), include=(), max_length=200, seed=0)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(validate.table(counts))
    totals = console.export_text().splitlines()[-2]
    assert [cell.strip() for cell in totals.split("│")[1:-1]] == [
        "3 datasets",
        "3",
        "1",
        str(sum(count.supervised for count in counts)),
        str(sum(count.tokens for count in counts)),
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def said(capsys, mixture, most=50, **options):
    found = validate.validate(
        mixture, **{"tokenizer": tiny_tokenizer(), "include": (), "max_length": 200, "seed": 0, **options}
    )
    validate.print_findings(found, most)
    return capsys.readouterr().out


def test_bad_records_are_grouped_by_dataset_and_kind_and_all_counted(folder, capsys):
    write(folder / "a.train.jsonl", [GOOD, {"inputs": "q"}, *([{"inputs": "q", "targets": 7}] * 60), GOOD])
    out = said(capsys, f"{folder}/*.train.jsonl")
    path = folder / "a.train.jsonl"
    assert (
        "a: 63 bad\n"
        f"  {path}:3: field 'targets' must be a string, got int: 7\n"
        f"    59 more of this kind: {path}:4, {path}:5, {path}:6, ...\n"
        f"  {path}:2: missing field 'targets'"
    ) in out
    assert f"c: 1 bad\n  {folder}/c.train.jsonl:1: not a JSON object" in out
    assert out.endswith("64 bad records, images or files in 2 datasets\n")


def test_no_dataset_hides_another_where_few_kinds_are_shown(folder, capsys):
    out = said(capsys, f"{folder}/*.train.jsonl", most=2)
    assert f"a: 3 bad\n  {folder}/a.train.jsonl:2: missing field 'targets'" in out
    assert "  2 of 2 other kinds\n" in out
    assert f"c: 1 bad\n  {folder}/c.train.jsonl:1: not a JSON object" in out
    out = said(capsys, f"{folder}/*.train.jsonl", most=1)
    assert "1 bad in 1 more datasets, which --max_bad=1 leaves out\n4 bad records" in out


def test_held_out_rows_that_are_trained_on_are_counted(tmp_path, capsys):
    rows = [{"inputs": f"q{i}", "targets": "yes"} for i in range(9)]
    write(tmp_path / "a.train.jsonl", [*rows[:6], rows[0], rows[0]])
    write(tmp_path / "a.test.jsonl", [rows[0], rows[1], rows[8]])
    write(tmp_path / "b.train.jsonl", [{"instruction": "q8", "output": "yes"}, {"instruction": "x", "output": "y"}])
    out = said(capsys, f"{tmp_path}/*.jsonl")
    assert "a: 2 of its 3 held-out rows are among its training rows\n" in out
    assert "a: 1 of its 3 held-out rows are among the training rows of b\n" in out


def test_a_held_out_file_that_is_the_training_file_is_told(tmp_path, capsys):
    write(tmp_path / "a.jsonl", [{"inputs": f"q{i}", "targets": "yes"} for i in range(3)])
    entry = {"file_name": "a.jsonl", "eval_file_name": "a.jsonl"}
    (tmp_path / "m.json").write_text(json.dumps({"a": entry, "a2": {"file_name": "a.jsonl"}}))
    out = said(capsys, f"{tmp_path}/m.json")
    assert "a and a2 have the same 3 training examples" in out
    assert "a: 3 of its 3 held-out rows are among its training rows\n" in out


def test_rows_held_out_of_a_file_with_repeated_rows_are_trained_on(tmp_path, capsys):
    write(tmp_path / "a.jsonl", [{"inputs": f"q{i}", "targets": "yes"} for i in (0, 1, 2) for _ in range(2)])
    (tmp_path / "m.json").write_text(json.dumps({"a": {"file_name": "a.jsonl", "held_out": 1}}))
    assert "a: 1 of its 1 held-out rows are among its training rows" in said(capsys, f"{tmp_path}/m.json")


def test_what_files_are_taken_for_comes_first(tmp_path, capsys):
    for name in ("birds_train", "birds_valid", "birds_test"):
        write(tmp_path / f"{name}.jsonl", [GOOD | {"inputs": name}])
    out = said(capsys, f"{tmp_path}/*.jsonl")
    assert out.startswith(
        "birds: trained on: birds_train.jsonl; held out: birds_valid.jsonl; not used: birds_test.jsonl\n"
    )
    assert "held-out rows are among" not in out


def test_animations_are_counted_per_dataset(tmp_path, capsys):
    processor = load_processor(tiny_vision.folder(tmp_path / "model"))
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "green", "blue")]
    for name in ("x.gif", "y.png", "z.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    tiny_vision.picture(tmp_path / "good.png", 16, 24)
    (tmp_path / "a.json").write_text(json.dumps([tiny_vision.llava(name) for name in ("x.gif", "y.png", "x.gif")]))
    (tmp_path / "b.json").write_text(json.dumps([tiny_vision.llava("good.png")]))
    out = said(capsys, f"{tmp_path}/*.json", tokenizer=processor.tokenizer, reader=processor.images, max_length=400)
    assert "a: 2 images have several frames or pages; the first is read\n" in out
    assert "b: " not in out.replace("b: trained on", "")


def test_the_image_root_that_would_help_is_named(tmp_path, capsys):
    processor = load_processor(tiny_vision.folder(tmp_path / "model"))
    for place in ("data/pictures/sub", "data/json"):
        (tmp_path / place).mkdir(parents=True)
    tiny_vision.picture(tmp_path / "data/pictures/sub/a.png", 16, 24)
    rows = [tiny_vision.llava(name) for name in ("sub/a.png", "pictures/sub/a.png", "gone.png")]
    (tmp_path / "data/json/a.json").write_text(json.dumps(rows))
    out = said(capsys, f"{tmp_path}/data/json/*.json", tokenizer=processor.tokenizer, reader=processor.images)
    data = tmp_path.resolve() / "data"
    assert f"a.json[0]: {data}/json/sub/a.png: no such image" in out
    assert (
        f"correct the path or delete the record; it is there with `image_root: {data}/pictures` in the manifest" in out
    )
    errors = validate.validate(
        f"{tmp_path}/data/json/*.json",
        processor.tokenizer,
        include=(),
        max_length=400,
        seed=0,
        reader=processor.images,
    ).bad
    assert [str(error).rpartition("; ")[2] for _, error in errors] == [
        f"it is there with `image_root: {data}/pictures` in the manifest",
        f"it is there with `image_root: {data}` in the manifest",
        "correct the path or delete the record",
    ]


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
    counts, errors, _ = validate.validate(
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
        assert str(error.error).startswith(f"{tmp_path}/{reason.format(tmp_path)}")


def test_a_text_model_refuses_images_by_line(tmp_path):
    tiny_vision.picture(tmp_path / "good.png", 16, 24)
    (tmp_path / "a.json").write_text(json.dumps([tiny_vision.llava("good.png")]))
    _, errors, _ = validate.validate(f"{tmp_path}/*.json", tiny_tokenizer(), include=(), max_length=400, seed=0)
    assert [str(error.error) for error in errors] == [
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
    validate.print_findings(found, 5)
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
    validate.print_findings(found, 5)
    said = capsys.readouterr().out
    assert "a and b are copies of the same data, each with training examples of its own" in said
    assert said.count("leave all but one out") == 1


def test_a_copy_in_another_order_with_its_own_held_out_rows_is_named(tmp_path):
    rows = [{"inputs": f"q{i}", "targets": "yes"} for i in range(12)]
    for name, content in {"a": rows, "b": rows[::-1]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    manifest = {name: {"file_name": f"{name}.json", "held_out": 3} for name in "ab"}
    (tmp_path / "mixture.json").write_text(json.dumps(manifest))
    counts, _, _ = validate.validate(f"{tmp_path}/mixture.json", tiny_tokenizer(), include=(), max_length=200, seed=0)
    assert [[each.name for each in group] for group in validate.duplicates(counts)] == [["a", "b"]]
    assert counts[0].content != counts[1].content


def test_the_same_text_with_other_images_of_the_same_names_is_no_copy(tmp_path):
    processor = load_processor(tiny_vision.folder(tmp_path / "model"))
    for name, size in (("a", (16, 24)), ("b", (24, 16))):
        (tmp_path / name).mkdir()
        tiny_vision.picture(tmp_path / name / "x.png", *size)
        (tmp_path / name / f"{name}.json").write_text(json.dumps([tiny_vision.llava("x.png")]))
    counts, errors, _ = validate.validate(
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
    counts, errors, _ = validate.validate(
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
    found = validate.validate(f"{tmp_path}/*.train.jsonl", tiny_tokenizer(template), include=(), max_length=200, seed=0)
    assert [(each.name, each.unended, each.unseen) for each in found.counts] == [("all", 2, 0), ("some", 1, 0)]
    (bad,) = found.bad
    assert str(bad.error).startswith(
        "dataset 'all': 2 of 2 training rows have a response that ends in no special token"
    )
    validate.print_findings(found, 5)
    said = capsys.readouterr().out
    assert said.count("dataset 'all': 2 of 2 training rows") == said.count("dataset 'some': 1 of 2 training rows") == 1
