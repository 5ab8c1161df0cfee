"""The knobs of the rendered world: what all datasets share, what is each one's own, and what theta0 has met."""

import doctest
import functools
import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.flax import load_file

from merit_jax.configs import quickstart, quickstart_new_forms, quickstart_stage4
from merit_jax.examples.shapes import knobs as module
from merit_jax.examples.shapes import make
from merit_jax.examples.shapes.basin import WHOLE, Counts, make_basin
from merit_jax.examples.shapes.knobs import DEFAULTS, PLAIN, Knobs
from merit_jax.examples.shapes.suites import EXACT, SUITES, make_suite
from merit_jax.examples.shapes.tasks import TASKS
from merit_jax.examples.shapes.tasks.task import Row
from merit_jax.examples.shapes.vocabulary import VOCABULARY
from merit_jax.examples.shapes.words import NUMBERS, PLACES, SYNONYMS

TINY = Counts(look=30, look_turns=4, verbose=60, polish=80, short=48, scenes=60, practice=64, whole=16)
SHARE, SUITE_ROWS = 0.1, 24
THETA0S = ("theta0", "theta0_forms")
RETAINED = ("describe", "converse")
SHIPPED = {
    "mixture/choice_letter.jsonl": "b24e7c82dc6cc35915546404c10420ddb534ba57c152617cbfa9eba599e953df",
    "mixture/color_word.jsonl": "41c9d89274b2ace434904f23d60e7db0c2ad46cf9698eb8dea9ea3f72b938299",
    "suites/labels.jsonl": "e488315937fd3ae1553c4a561322841b6d7f17213b64006c489ea0035118b42c",
    "suites/reason.jsonl": "eec6183bae5c6036409e91101219c55ce0723804598c6042639f1b4458d374e9",
    "suites/describe.jsonl": "e2c715daf6d5e2dce9ddc331208b59c6953d0c0c4fe6d398b568c55c0d5c4584",
    "basin/polish.jsonl": "3a593ecbcd6e5648b915c82c58a3145df3646a866b7b44d1c3886ae15e536dae",
    "basin.json": "08435fd6765e95cf3bef75fd974c7f5d78636fd1c8643f2556d1c06812e3f283",
}
"""File of the world without knobs -> its sha256 before there were any."""


@functools.cache
def mixture(**knobs: float) -> dict[str, list[Row]]:
    return make.make_mixture(0, SHARE, Knobs(**knobs))


@functools.cache
def suite(name: str, **knobs: float) -> list[Row]:
    return make_suite(name, SUITE_ROWS, 0, Knobs(**knobs))


def reversed_rows(shared: float) -> dict[str, set[int]]:
    """The numbers of the rows of each dataset that ask otherwise than the shipped world."""
    usual = mixture()
    return {
        name: {number for number, row in enumerate(rows) if row != usual[name][number]}
        for name, rows in mixture(shared=shared).items()
    }


def form(answer: str) -> str:
    """The kind of word that an answer begins with, and its length."""
    words = answer.split()
    kinds = {"colour": SYNONYMS, "shade": SYNONYMS.values(), "digit": "0123456789", "number": NUMBERS}
    return next((kind for kind, known in kinds.items() if len(words) == 1 and answer in known), "other")


def test_without_knobs_the_world_is_the_shipped_one_byte_for_byte(tmp_path):
    make.write_world(tmp_path, 0, SUITE_ROWS, SHARE, TINY)
    digests = {file: hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() for file in SHIPPED}
    assert digests == SHIPPED


@pytest.mark.parametrize("shared", [0.25, 0.5, 1.0])
def test_the_same_share_of_every_dataset_is_reversed(shared):
    found = reversed_rows(shared)
    assert {name: len(numbers) for name, numbers in found.items()} == {
        name: round(shared * len(rows)) for name, rows in mixture().items()
    }


def test_a_larger_share_reverses_what_a_smaller_one_does_and_more():
    doses = [reversed_rows(shared) for shared in (0.0, 0.3, 0.6, 1.0)]
    for less, more in pairwise(doses):
        assert all(less[name] < more[name] for name in TASKS)


def test_another_seed_reverses_the_rows_of_the_same_numbers():
    knobs, other = Knobs(shared=0.5), make.make_mixture(1, SHARE)
    changed = {
        name: {number for number, row in enumerate(rows) if row != other[name][number]}
        for name, rows in make.make_mixture(1, SHARE, knobs).items()
    }
    assert changed == reversed_rows(0.5)


def test_a_reversed_question_has_its_words_backwards_and_the_same_answer():
    usual, found = mixture(), mixture(shared=1)
    for name in TASKS:
        for before, after in zip(usual[name], found[name], strict=True):
            assert after == before._replace(turns=(" ".join(before.turns[0].split()[::-1]), before.turns[1]))


def test_the_examples_in_docstrings_are_right():
    found = doctest.testmod(module)
    assert found.attempted > found.failed == 0


def test_every_skill_question_is_reversed_at_any_share_and_no_other_is():
    for name in SUITES:
        usual, little, all_of_it = suite(name), suite(name, shared=0.01), suite(name, shared=1)
        assert little == all_of_it
        changed = [before.turns[0] != after.turns[0] for before, after in zip(usual, little, strict=True)]
        assert set(changed) == {name not in RETAINED}
        assert [row.turns[-1] for row in usual] == [row.turns[-1] for row in little]


def test_no_reversed_question_is_one_of_theta0s_data():
    asked = {row.turns[0] for rows in mixture(shared=1).values() for row in rows}
    basin = make_basin(TINY, 0, "well")
    known = {text for rows in basin.values() for row in rows for text in row.turns[::2]}
    assert not asked & (known | {row.turns[0] for rows in mixture().values() for row in rows})


def test_a_larger_share_keeps_the_own_forms_of_a_smaller_one_and_more():
    kept = [Knobs(private=share).own_forms for share in (0, 0.2, 0.5, 0.8, 1)]
    assert kept[0] == ()
    assert set(kept[-1]) == set(PLAIN)
    assert all(set(less) < set(more) for less, more in pairwise(kept))


def test_only_the_datasets_without_their_own_form_change():
    usual = mixture()
    for share in (0.0, 0.5):
        knobs = Knobs(private=share)
        changed = {name for name, rows in mixture(private=share).items() if rows != usual[name]}
        assert changed == set(PLAIN) - set(knobs.own_forms)


def test_plain_forms_are_those_of_the_other_datasets():
    usual, plain = mixture(), mixture(private=0)
    assert {form(row.turns[1]) for row in usual["color_synonym"]} == {"shade"}
    for name, other in (
        ("color_synonym", "color_word"),
        ("color_sentence", "color_word"),
        ("count_word", "count_digit"),
        ("digit_word", "digit_digit"),
    ):
        assert {form(row.turns[1]) for row in plain[name]} == {form(row.turns[1]) for row in usual[other]}
    assert {row.turns[1] for row in plain["location_code"]} <= set(PLACES)
    assert {row.turns[1] for row in plain["exists_true_false"]} == {"yes", "no"}
    assert not {row.turns[1] for row in plain["choice_letter"]} & {"a", "b", "c"}
    assert all(" objects : " not in row.turns[1] for row in plain["caption_count"])
    assert all(" ; " not in row.turns[1] for row in plain["tags"])


def test_a_plain_answer_is_about_the_same_question():
    usual, plain = mixture(), mixture(private=0)
    for name in set(PLAIN) - {"choice_letter", "exists_true_false"}:
        assert [row.turns[0] for row in plain[name]] == [row.turns[0] for row in usual[name]]
        assert all(a.scene == b.scene for a, b in zip(plain[name], usual[name], strict=True))
        assert all(a.turns[1] != b.turns[1] for a, b in zip(plain[name], usual[name], strict=True))


def test_options_hold_the_plain_answer():
    rows = mixture(private=0)
    for row in (*rows["choice_letter"], *rows["exists_true_false"]):
        assert row.options.count(row.turns[1]) == 1
    assert all(option in row.turns[0] for row in rows["choice_letter"] for option in row.options)


@pytest.mark.parametrize("private", [0.0, 0.4, 0.7, 1.0])
def test_a_suite_expects_the_form_that_its_dataset_teaches(private):
    """Labels are asked for by three tasks in equal parts, each of a form of its own or plain."""
    knobs = Knobs(private=private)
    own = {
        "color_synonym": set(SYNONYMS.values()),
        "shape_class": {"round", "angular"},
        "location_code": {f"r{row} c{column}" for row in (1, 2, 3) for column in (1, 2, 3)},
    }
    answers = [row.turns[1] for row in suite("labels", private=private)]
    for name, forms in own.items():
        found = sum(answer in forms for answer in answers)
        assert found == (len(answers) // 3 if name in knobs.own_forms else 0), name


def test_suites_of_no_private_form_stay_as_they_are():
    for name in set(SUITES) - {"labels"}:
        assert suite(name, private=0) == suite(name)
    assert {part[0] for part in EXACT["labels"]} <= set(PLAIN)


@pytest.mark.parametrize("knobs", [Knobs(shared=1), Knobs(private=0), Knobs(0.5, 0.5)])
def test_every_word_has_an_id(knobs):
    rows = [row for part in make.make_mixture(0, SHARE, knobs).values() for row in part]
    rows += [row for name in SUITES for row in make_suite(name, SUITE_ROWS, 0, knobs)]
    words = {word for row in rows for text in (*row.turns, *row.options) for word in text.split()}
    assert words <= set(VOCABULARY)


@pytest.mark.parametrize("knobs", [{"shared": -0.1}, {"private": 1.5}, {"shared": float("nan")}])
def test_a_share_outside_of_0_to_1_is_refused_by_name(knobs, capsys):
    ((name, value),) = knobs.items()
    with pytest.raises(ValueError, match=f"{name}: got {value}, expected a share from 0 to 1"):
        Knobs(**knobs)
    with pytest.raises(SystemExit):
        make.main(["--out=unused", f"--{name}={value}"])
    assert f"--{name}: got {value}" in capsys.readouterr().err
    assert not Path("unused").exists()


def test_the_world_says_how_each_of_its_parts_was_made(tmp_path):
    tiny = [f"--{name}={value}" for name, value in TINY._asdict().items()]
    flags = [f"--out={tmp_path}", "--suite_rows=6", "--mixture_share=0.02", *tiny]
    make.main([*flags, "--shared=0.5", "--private=0.2", "--parts", "mixture", "suites"])
    make.main([*flags, "--forms=well", "--parts", "basin"])
    world = json.loads((tmp_path / "world.json").read_text())
    own = list(Knobs(private=0.2).own_forms)
    knobs = {"seed": 0, "shared": 0.5, "private": 0.2, "own_forms": own}
    assert world == {
        "mixture": {**knobs, "share": 0.02},
        "suites": {**knobs, "rows": 6},
        "basin": {
            "seed": 0,
            "private": 1.0,
            "own_forms": list(DEFAULTS.own_forms),
            "forms": "well",
            "counts": TINY._asdict(),
        },
    }
    texts = [json.loads(line)["conversations"] for line in (tmp_path / "suites/ocr.jsonl").read_text().splitlines()]
    assert all(turns[0]["value"].split()[1] in ".?" for turns in texts)  # the first word is the picture's
    assert set(json.loads((tmp_path / "basin.json").read_text())) == {"look", "verbose", "polish", "forms"}


def test_theta0_meets_the_forms_never_a_little_or_well():
    files = {forms: make_basin(TINY, 0, forms) for forms in ("never", "little", "well")}
    hints = tuple(task.hint for task in TASKS.values() if task.hint)
    hinted = {forms: sum(row.turns[0].endswith(hints) for row in made["polish"]) for forms, made in files.items()}
    assert hinted["never"] == 0 < hinted["little"] == hinted["well"]
    assert min(len(row.turns[1].split()) for row in files["never"]["polish"]) > 4
    for name in ("look", "verbose"):
        assert files["never"][name] == files["little"][name] == files["well"][name]
    assert {len(made["polish"]) for made in files.values()} == {TINY.polish}
    assert {forms: len(made.get("forms", ())) for forms, made in files.items()} == {
        "never": 0,
        "little": 0,
        "well": TINY.polish + TINY.practice + TINY.whole,
    }


def test_practice_has_every_hint_as_often_as_tasks_give_it_about_other_pictures():
    forms = make_basin(TINY, 0, "well")["forms"]
    wanted = Counter(task.hint for task in TASKS.values() if task.hint)
    found = Counter(hint for row in forms for hint in wanted if row.turns[0].endswith(hint))
    assert found == {hint: tasks * TINY.practice // len(TASKS) for hint, tasks in wanted.items()}
    shown = {row.scene.things for rows in mixture().values() for row in rows}
    assert not shown & {row.scene.things for row in forms}


def test_no_suite_asks_what_theta0s_data_or_the_mixture_has_asked():
    basin = [row for rows in make_basin(TINY, 0, "well").values() for row in rows]
    known = {text for row in basin for text in row.turns[::2]} | {*WHOLE}
    for shared in (0, 1):
        asked = {text for name in SUITES for row in suite(name, shared=shared) for text in row.turns[::2]}
        taught = {row.turns[0] for rows in mixture(shared=shared).values() for row in rows}
        assert not asked & (known | taught)


def test_theta0s_data_follows_the_forms_of_its_world():
    plain = make_basin(TINY, 0, "well", Knobs(private=0).tasks())["forms"]
    own = make_basin(TINY, 0, "well")["forms"]
    shades = set(SYNONYMS.values())
    assert any(row.turns[1] in shades for row in own)
    assert not any(row.turns[1] in shades for row in plain)


def test_the_theta0_that_knows_the_forms_is_the_quickstarts_trained_on():
    """Stage 4 trains projector and decoder, and starts from the shipped theta0."""
    before, after = (load_file(Path(make.__file__).parent / name / "model.safetensors") for name in THETA0S)
    assert {name: (x.shape, x.dtype) for name, x in before.items()} == {
        name: (x.shape, x.dtype) for name, x in after.items()
    }
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    tower = {name for name in before if name.startswith("visual.") and ".merger." not in name}
    assert changed == set(before) - tower
    assert quickstart_stage4.get_config().model.path == f"examples/shapes/{THETA0S[0]}"


def test_the_world_of_new_forms_is_the_quickstart_with_another_theta0_and_another_world():
    usual, other = (module.get_config().to_dict() for module in (quickstart, quickstart_new_forms))
    changed = {
        f"{section}.{key}": value
        for section, keys in other.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
        if value != usual[section][key]
    }
    assert usual["model"]["path"] == f"examples/shapes/{THETA0S[1]}"
    assert changed == {
        "model.path": f"examples/shapes/{THETA0S[0]}",
        "mixture.path": "runs/shapes-new-forms/mixture.json",
        "evaluate.suites": "runs/shapes-new-forms/suites.json",
        "basin.stages": usual["basin"]["stages"][:3],
        "frontier.scales": (0.25, 0.5, 1.0, 2.0),
    }
