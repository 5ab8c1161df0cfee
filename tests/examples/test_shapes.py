import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from merit_jax.examples.shapes import basin, make
from merit_jax.examples.shapes.basin import Counts
from merit_jax.examples.shapes.glyphs import BITMAPS
from merit_jax.examples.shapes.render import RGB, render
from merit_jax.examples.shapes.scenes import CLASSES, COLORS, SHAPES, UNSEEN, make_scene
from merit_jax.examples.shapes.suites import SUITES
from merit_jax.examples.shapes.tasks import TASKS
from merit_jax.examples.shapes.vocabulary import VOCABULARY
from merit_jax.examples.shapes.words import PLACES

TINY = Counts(look=30, look_turns=4, verbose=60, polish=80, short=48, scenes=60)
SUITE_ROWS, SHARE = 24, 0.1
SHIPPED = tuple(Path(make.__file__).parent / name for name in ("theta0", "theta0_forms"))
GROUPS = ("mixture", "suites", "basin")
SIDE_OF = {
    "left of": lambda a, b: a % 3 < b % 3,
    "right of": lambda a, b: a % 3 > b % 3,
    "above": lambda a, b: a // 3 < b // 3,
    "below": lambda a, b: a // 3 > b // 3,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    make.write_world(folder, 0, SUITE_ROWS, SHARE, TINY)
    return folder


def rows(world: Path, group: str) -> dict[str, list[dict]]:
    manifest = json.loads((world / f"{group}.json").read_text())
    return {
        name: [json.loads(line) for line in (world / entry["file_name"]).read_text().splitlines()]
        for name, entry in manifest.items()
    }


def every_row(world: Path, *groups: str) -> list[dict]:
    return [row for group in groups or GROUPS for part in rows(world, group).values() for row in part]


def questions(world: Path, *groups: str) -> set[str]:
    turns = [turn for row in every_row(world, *groups) for turn in row["conversations"]]
    return {turn["value"].removeprefix("<image>\n") for turn in turns if turn["from"] == "human"}


def asked(row: dict) -> tuple[str, str]:
    question, answer = row["conversations"][-2:]
    return question["value"].removeprefix("<image>\n"), answer["value"]


def scene_of(row: dict, seed: int = 0):
    split, *crowd, number = row["image"].removesuffix(".png").split("-")
    return make_scene(split, seed, int(number[1:]), number[0] == "w", *crowd)


def pixels(world: Path, row: dict) -> np.ndarray:
    with Image.open(world / "images" / row["image"]) as picture:
        return np.asarray(picture)


def cells_with_ink(world: Path, row: dict) -> dict[str, np.ndarray]:
    """What stands out from the ground, read from the file: place -> mean colour."""
    picture = pixels(world, row).astype(int)
    found = {}
    for number, place in enumerate(PLACES):
        top, left = number // 3 * 12, number % 3 * 12
        cell = picture[top : top + 12, left : left + 12].reshape(-1, 3)
        bright = cell[cell.max(axis=1) > 100]
        if len(bright):
            found[place] = bright.mean(axis=0)
    return found


def nearest_color(rgb: np.ndarray) -> str:
    return min(RGB, key=lambda name: np.abs(rgb - RGB[name]).sum())


def named(scene) -> list[tuple[str, int]]:
    """Every name of every thing, with its cell."""
    kinds = {"shape": "", "letter": "letter ", "digit": "digit ", "written": "written digit "}
    nouns = [(kinds[thing.kind] + thing.name, thing) for thing in scene.things]
    names = [(noun, thing.cell) for noun, thing in nouns]
    names += [(f"{thing.color} {noun}", thing.cell) for noun, thing in nouns]
    names += [(f"{thing.color} object", thing.cell) for thing in scene.things]
    return names + [(f"object in the {PLACES[thing.cell]}", thing.cell) for thing in scene.things]


def test_the_same_seed_writes_the_same_world(world, tmp_path):
    make.write_world(tmp_path, 0, SUITE_ROWS, SHARE, TINY)
    files = [path.relative_to(world) for path in sorted(world.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert all((world / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_another_seed_writes_another_world(world):
    other = make.make_mixture(1, SHARE)["color_word"]
    same = rows(world, "mixture")["color_word"]
    assert len(other) == len(same)
    assert [row.turns[0] for row in other] != [asked(row)[0] for row in same]


def test_splits_share_no_scene_whatever_the_seeds():
    contents = [
        {make_scene(split, seed, number).things for number in range(300)}
        for seed, split in enumerate((*CLASSES, *CLASSES))
    ]
    for one, other in ((0, 1), (0, 2), (1, 2), (3, 1), (4, 2), (5, 0)):
        assert not contents[one] & contents[other]


def test_handwriting_of_one_split_is_not_in_another():
    seen = {
        split: {make_scene(split, 0, number, True).of_kind("written")[0] for number in range(100)} for split in CLASSES
    }
    pictures = [{thing.picture for thing in things} for things in seen.values()]
    assert all(pictures)
    assert len(set.union(*pictures)) == sum(map(len, pictures))


def test_only_the_suites_show_the_combinations_that_the_mixture_lacks(world):
    shown = {
        group: {(thing.color, thing.name) for row in every_row(world, group) for thing in scene_of(row).things}
        for group in GROUPS
    }
    assert not shown["mixture"] & UNSEEN
    assert shown["suites"] >= UNSEEN


def test_every_word_has_an_id_and_comes_back(world):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(world / "theta0")
    texts = {turn["value"].removeprefix("<image>\n") for row in every_row(world) for turn in row["conversations"]}
    texts |= {option for row in every_row(world) for option in row.get("options", ())}
    texts |= {wording.format_map(Blank()) for task in TASKS.values() for wording in (*task.wordings, task.hint)}
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids) == text


class Blank(dict):
    def __missing__(self, key):
        return "red"


def test_easy_vqa_is_in_the_vocabulary():
    questions = (
        "is there not a gray shape present in the image ? does it contain no rectangle ? what color is the triangle"
    )
    assert {*questions.split(), "yes", "of", "teal", "black", "brown", "circle"} <= set(VOCABULARY)


def test_prompts_are_prefixes_and_rows_are_short(world):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(world / "theta0")
    for row in every_row(world):
        messages = [
            {"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": turn["value"]}
            for turn in row["conversations"]
        ]
        text = {"type": "text", "text": messages[0]["content"].removeprefix("<image>\n")}
        messages[0]["content"] = [{"type": "image"}, text]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        assert whole == prompt + messages[-1]["content"] + tokenizer.eos_token
        assert whole.count("<|image_pad|>") == 1
        assert len(tokenizer(whole)["input_ids"]) + 8 < 96
        assert len(messages[-1]["content"].split()) <= 45


@pytest.mark.parametrize("name", ["count_digit", "count_color"])
def test_counts_agree_with_the_pixels(world, name):
    for row in rows(world, "mixture")[name]:
        question, answer = asked(row)
        colors = [nearest_color(rgb) for rgb in cells_with_ink(world, row).values()]
        wanted = [color for color in COLORS if color in question.split()]
        assert int(answer) == (colors.count(wanted[0]) if wanted else len(colors)), row


def test_colors_agree_with_the_pixels(world):
    checked = 0
    for row in rows(world, "mixture")["color_word"]:
        question, answer = asked(row)
        for place, rgb in cells_with_ink(world, row).items():
            if f"in the {place} " in question:
                assert answer == nearest_color(rgb)
                checked += 1
    assert checked > 5


def test_existence_is_judged_rightly(world):
    for row in [*rows(world, "mixture")["exists_yes_no"], *rows(world, "mixture")["exists_true_false"]]:
        question, answer = asked(row)
        there = any(f" a {name} " in question for name, _ in named(scene_of(row)))
        assert there == (answer in ("yes", "true")), row


def test_relations_are_judged_rightly(world):
    for row in rows(world, "mixture")["relation_yes_no"]:
        question, answer = asked(row)
        side = next(side for side in SIDE_OF if side in question)
        places = {}
        for name, cell in named(scene_of(row)):
            for order, end in enumerate((f"the {name} {side}", f"{side} the {name} ")):
                if end in question:
                    places[order] = cell
        if len(places) < 2:
            first = [
                cell
                for name, cell in named(scene_of(row))
                if question.endswith(f"there the {name} ? answer yes or no .")
            ]
            places[0] = first[0]
        assert SIDE_OF[side](places[0], places[1]) == (answer == "yes"), row


def test_references_mean_one_thing(world):
    for row in rows(world, "mixture")["location_words"]:
        question, answer = asked(row)
        meant = {cell for name, cell in named(scene_of(row)) if f" the {name} " in question}
        assert {PLACES[cell] for cell in meant} == {answer}, row


def test_letters_are_read_in_order(world):
    for row in rows(world, "mixture")["ocr_all"]:
        letters = [
            thing.name for thing in sorted(scene_of(row).things, key=lambda thing: thing.cell) if thing.kind == "letter"
        ]
        assert asked(row)[1].split() == letters


def test_options_hold_the_answer_once(world):
    found = [row for row in every_row(world) if "options" in row]
    assert {"choice", "exists_yes_no"} <= {row["id"].rpartition("-")[0] for row in found}
    for row in found:
        answer = asked(row)[1]
        assert row["options"].count(answer) == 1
        assert len(set(row["options"])) == len(row["options"])


def test_suites_ask_in_words_that_training_never_used(world):
    assert not questions(world, "suites") & questions(world, "mixture", "basin")
    known = {word for text in questions(world, "mixture", "basin") for word in text.split()}
    known |= {word for task in TASKS.values() for wording in task.wordings for word in wording.split()}
    known |= {word for group in basin.WORDINGS.values() for wording in group for word in wording.split()}
    known |= {*COLORS, *SHAPES, *BITMAPS}
    assert {word for text in questions(world, "suites") for word in text.split()} <= known


def test_facts_are_in_the_reference_answer(world):
    for suite in ("describe", "converse"):
        for row in rows(world, "suites")[suite]:
            assert row["facts"]
            assert all(f" {fact} " in f" {asked(row)[1]} " for fact in row["facts"])


def test_sizes_are_as_declared(world):
    assert 28 <= len(TASKS) <= 32
    assert 5000 <= sum(task.rows for task in TASKS.values()) <= 6000
    assert all(80 <= task.rows <= 480 for task in TASKS.values())
    assert {name: len(part) for name, part in rows(world, "mixture").items()} == {
        name: round(task.rows * SHARE) for name, task in TASKS.items()
    }
    assert {name: len(part) for name, part in rows(world, "suites").items()} == dict.fromkeys(SUITES, SUITE_ROWS)
    assert {name: len(part) for name, part in rows(world, "basin").items()} == {"look": 30, "verbose": 60, "polish": 80}


def test_theta0_knows_the_forms_of_most_tasks_a_little(world):
    tasted = [name for name, task in TASKS.items() if task.tasted]
    short = [row for row in rows(world, "basin")["polish"] if len(asked(row)[1].split()) < 5]
    assert 0.6 * len(TASKS) < len(tasted) < len(TASKS)
    assert 0.8 * TINY.short <= len(short) <= 1.2 * TINY.short


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda folder: folder.name)
@pytest.mark.parametrize("file", ["tokenizer.json", "chat_template.jinja", "preprocessor_config.json"])
def test_the_shipped_theta0_reads_what_this_world_writes(world, file, shipped):
    assert (shipped / file).read_text() == (world / "theta0" / file).read_text()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_shipped_theta0_is_the_model_that_is_declared(world, folder):
    shipped, declared = (json.loads((path / "config.json").read_text()) for path in (folder, world / "theta0"))
    kinds = [config.pop("dtype") for config in (shipped, declared)]
    assert kinds == ["bfloat16", "float32"]
    for part, values in declared.items():
        assert shipped[part] == values if not isinstance(values, dict) else values.items() <= shipped[part].items(), (
            part
        )


def test_pictures_lie_where_the_manifests_say(world):
    for group in GROUPS:
        roots = {entry["image_root"] for entry in json.loads((world / f"{group}.json").read_text()).values()}
        assert roots == {"images"}
        for row in every_row(world, group):
            assert np.array_equal(pixels(world, row), render(scene_of(row)))


def test_without_scikit_learn_the_handwritten_datasets_are_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(make, "written_digits", lambda: None)
    monkeypatch.setattr(basin, "written_digits", lambda: None)
    make.write_world(tmp_path, 0, 6, 0.02, TINY._replace(polish=40, short=24))
    assert "scikit-learn is not installed" in capsys.readouterr().err
    assert set(TASKS) - set(rows(tmp_path, "mixture")) == {"written_digit", "written_parity"}
    assert not list((tmp_path / "images").glob("*-w*.png"))


def test_theta0_takes_a_picture_as_nine_tokens(world):
    from transformers import AutoConfig, AutoImageProcessor

    config = AutoConfig.from_pretrained(world / "theta0")
    processor = AutoImageProcessor.from_pretrained(world / "theta0", backend="pil")
    assert VOCABULARY[config.image_token_id] == "<|image_pad|>"
    assert sum(config.text_config.rope_parameters["mrope_section"]) == 16
    for side in (36, 64):
        picture = Image.fromarray(np.zeros((side, side, 3), np.uint8))
        assert processor(picture, return_tensors="np")["image_grid_thw"].tolist() == [[1, 6, 6]]


def test_a_sheet_is_drawn(tmp_path):
    make.main([f"--sheet={tmp_path / 'sheet.png'}"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 148, 5 * 148)
