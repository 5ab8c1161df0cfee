import importlib.util
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from merit_jax.data.formats import to_record
from merit_jax.data.manifest import read_manifest
from merit_jax.examples.easy_vqa import make
from merit_jax.examples.easy_vqa.kinds import COLORS, SHAPES, WORDINGS, kind_of, spaced
from merit_jax.examples.shapes.tokenizer import make_tokenizer
from merit_jax.examples.shapes.vocabulary import VOCABULARY

TRAIN = [
    ["What shape is in the image?", "circle", 0],
    ["is there a teal shape?", "yes", 0],
    ["what is the color of the shape?", "teal", 0],
    ["is there a red shape in the image?", "no", 1],
    ["is no rectangle present?", "yes", 1],
]
TEST = [["what shape is present?", "triangle", 0], ["is there a blue shape?", "no", 0]]


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package easy_vqa as its wheel lays it out, which cannot be imported. Picture 0 of train is not that of test."""
    folder = tmp_path / "site" / "easy_vqa"
    for split, rows, pictures in (("train", TRAIN, 2), ("test", TEST, 1)):
        images = folder / "data" / split / "images"
        images.mkdir(parents=True)
        (folder / "data" / split / "questions.json").write_text(json.dumps(rows))
        for number in range(pictures):
            Image.new("RGB", (64, 64), (number, 0, len(split))).save(images / f"{number}.png")
    (folder / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def rows_of(out: Path, split: str) -> dict[str, list[dict]]:
    """The rows of every dataset of the manifest."""
    key = {"train": "file_name", "test": "eval_file_name"}[split]
    entries = json.loads((out / "mixture.json").read_text())
    return {
        name: [json.loads(line) for line in (out / entry[key]).read_text().splitlines()]
        for name, entry in entries.items()
        if key in entry
    }


def asked(rows: dict[str, list[dict]]) -> dict[str, list[tuple[str, ...]]]:
    return {
        name: [(*(turn["value"] for turn in row["conversations"]), row["image"]) for row in part]
        for name, part in rows.items()
    }


def test_questions_go_to_the_dataset_of_their_kind_with_punctuation_apart(package, tmp_path):
    make.main([f"--out={tmp_path / 'out'}"])
    assert asked(rows_of(tmp_path / "out", "train")) == {
        "what_shape": [("<image>\nwhat shape is in the image ?", "circle", "train/0.png")],
        "what_color": [("<image>\nwhat is the color of the shape ?", "teal", "train/0.png")],
        "is_there_color": [
            ("<image>\nis there a teal shape ?", "yes", "train/0.png"),
            ("<image>\nis there a red shape in the image ?", "no", "train/1.png"),
        ],
        "is_no_present_shape": [("<image>\nis no rectangle present ?", "yes", "train/1.png")],
    }
    assert asked(rows_of(tmp_path / "out", "test")) == {
        "what_shape": [("<image>\nwhat shape is present ?", "triangle", "test/0.png")],
        "is_there_color": [("<image>\nis there a blue shape ?", "no", "test/0.png")],
    }


def test_the_mixture_reads_what_is_written(package, tmp_path):
    make.main([f"--out={tmp_path / 'out'}"])
    entries = {entry.name: entry for entry in read_manifest(str(tmp_path / "out" / "mixture.json"))}
    assert {name for name, entry in entries.items() if entry.held_out_files} == {"what_shape", "is_there_color"}
    for name, rows in rows_of(tmp_path / "out", "test").items():
        entry = entries[name]
        assert Path(*entry.held_out_files) == tmp_path / "out" / "test" / f"{name}.jsonl"
        question, answer = to_record(entry.format, rows[0], "here", entry.layout).messages
        image = Path(next(part["path"] for part in question["content"] if part["type"] == "image"))
        assert image.read_bytes() == (package / "data" / "test" / "images" / "0.png").read_bytes()
        assert answer["content"] in ("triangle", "no")


def test_writing_twice_gives_the_same_files(package, tmp_path):
    contents = []
    for _ in range(2):
        make.main([f"--out={tmp_path / 'out'}"])
        contents.append({path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 1 + 2 * len(WORDINGS) + 3


def test_without_the_package_the_error_is_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        make.main([f"--out={tmp_path / 'out'}"])
    assert "pip install --no-deps easy-vqa" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["how large is the circle?", "small", 0], r"question 1: 'how large is the circle \?' is of no known kind"),
        (["is there a circle?", "yes", 7], r"question 1: no picture .*7\.png"),
        (["is there a circle?", "yes"], r"question 1: \['is there a circle\?', 'yes'\] is not \[question, answer"),
    ],
)
def test_a_bad_question_is_named(package, tmp_path, row, message):
    file = package / "data" / "train" / "questions.json"
    file.write_text(json.dumps([TRAIN[0], row]))
    with pytest.raises(ValueError, match=re.escape(str(file)) + ": " + message):
        make.write_mixture(package / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_of_questions_is_named(package, tmp_path):
    file = package / "data" / "test" / "questions.json"
    file.unlink()
    with pytest.raises(ValueError, match=re.escape(str(file))):
        make.write_mixture(package / "data", tmp_path / "out")


def test_every_wording_is_of_one_kind_and_kept_by_the_tokenizer():
    tokenizer, wordings = make_tokenizer(), [wording for group in WORDINGS.values() for wording in group]
    assert len(set(wordings)) == len(wordings) == 24
    for kind, group in WORDINGS.items():
        for wording in group:
            for color, shape in zip(COLORS, SHAPES * 3, strict=False):
                text = wording.replace("COLOR", color).replace("SHAPE", shape)
                assert kind_of(text) == kind
                assert spaced(text.replace(" ?", "?").title()) == text
                assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.skipif(importlib.util.find_spec("easy_vqa") is None, reason="needs the easy-vqa wheel")
def test_every_question_of_the_wheel_is_in_one_dataset_with_known_words_and_a_picture(tmp_path):
    make.main([f"--out={tmp_path}"])
    data = make.package_data()
    for split, total, pictures in (("train", 38575, 4000), ("test", 9673, 1000)):
        found = rows_of(tmp_path, split)
        assert len(found) == 16
        assert min(map(len, found.values())) > 200
        told = sorted((row for part in found.values() for row in part), key=lambda row: int(row["id"].split("-")[1]))
        assert [row["id"] for row in told] == [f"{split}-{number}" for number in range(total)]
        real = json.loads((data / split / "questions.json").read_text())
        for row, (question, answer, image) in zip(told, real, strict=True):
            first, second = (turn["value"] for turn in row["conversations"])
            assert first.removeprefix("<image>\n").replace(" ?", "?") == question
            assert (second, row["image"]) == (answer, f"{split}/{image}.png")
        words = {word for row in told for turn in row["conversations"] for word in turn["value"].split()}
        assert words - {"<image>"} <= set(VOCABULARY)
        assert {row["image"] for row in told} == {
            f"{split}/{path.name}" for path in (tmp_path / "images" / split).iterdir()
        }
        assert len({row["image"] for row in told}) == pictures
