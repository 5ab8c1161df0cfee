"""Suites are sampled by name and seed, and fall into two kinds."""

import json

import pytest

from merit_jax.evaluation.suites import Kinds, draw_records, kinds, load_suites
from tests.support import world

ACCURACIES = {"describe_a": 0.5, "count": 0.2, "describe_b": 0.7, "yesno": 0.6}


@pytest.mark.parametrize(
    ("retained", "expected"),
    [
        (("describe_*",), (0.6, 0.4)),
        (("yesno", "describe_b"), (0.65, 0.35)),
        (("describe_*", "*_b"), (0.6, 0.4)),
        ((), (None, 0.5)),
        (("*",), (0.5, None)),
    ],
)
def test_kinds_are_means_over_the_suites_that_match_and_over_the_others(retained, expected):
    assert kinds(ACCURACIES, retained) == Kinds(*(value and pytest.approx(value) for value in expected))


def test_a_pattern_without_a_suite_is_refused():
    expected = r"evaluate\.retained: no suite matches 'Describe'; known: describe_a, count, describe_b, yesno"
    with pytest.raises(ValueError, match=expected):
        kinds(ACCURACIES, ("describe_a", "Describe"))


@pytest.fixture
def files(tmp_path):
    """Two suites of 40 records; the answer tells the place."""
    for name in ("one", "two"):
        world.write_rows(tmp_path / f"{name}.jsonl", [{"inputs": f"{name} {i}", "targets": str(i)} for i in range(40)])
    (tmp_path / "suites.json").write_text(json.dumps({name: {"file_name": f"{name}.jsonl"} for name in ("two", "one")}))
    return tmp_path


def places(files, path="*.jsonl", **options):
    suites = draw_records(load_suites(str(files / path)), **{"seed": 0, **options})
    return {name: [int(record.messages[-1]["content"]) for record in records] for name, records in suites.items()}


def test_a_suite_is_all_records_of_its_file(files):
    assert places(files) == places(files, "suites.json") == {"one": list(range(40)), "two": list(range(40))}


def test_a_sample_is_of_the_suites_name_and_the_seed_and_keeps_the_order(files):
    sample = places(files, max_records=10)
    assert sample == places(files, max_records=10)
    for rows in sample.values():
        assert rows == sorted(set(rows))
        assert len(rows) == 10
    assert sample["one"] != sample["two"]
    assert places(files, max_records=10, seed=1)["one"] != sample["one"]
    assert places(files, max_records=50)["one"] == list(range(40))
    assert set(sample["one"]) < set(places(files, max_records=20)["one"])


def test_the_halves_of_a_suite_are_the_same_for_every_seed_and_hold_every_record_once(files):
    with (files / "two.jsonl").open("a") as file:
        file.write('{"inputs": "two 40", "targets": "40"}\n')
    choosing, reporting = (places(files, half=half) for half in ("choosing", "reporting"))
    assert (choosing, reporting) == tuple(places(files, half=half, seed=7) for half in ("choosing", "reporting"))
    for name, count in {"one": 40, "two": 41}.items():
        assert len(choosing[name]) == 20
        assert sorted(choosing[name] + reporting[name]) == list(range(count))
        assert choosing[name] == sorted(choosing[name]) != list(range(20))
    assert choosing["one"] != choosing["two"]


def test_a_half_does_not_depend_on_the_other_suites_or_where_they_are(files, tmp_path):
    before = places(files, half="choosing")["one"]
    (files / "moved").mkdir()
    (files / "one.jsonl").rename(files / "moved/one.jsonl")
    assert places(files, "moved/*.jsonl", half="choosing") == {"one": before}


@pytest.mark.parametrize("half", ["choosing", "reporting"])
def test_a_sample_of_a_half_is_drawn_by_the_seed_within_it(files, half):
    whole = places(files, half=half)
    samples = [places(files, half=half, max_records=8, seed=seed) for seed in (0, 1)]
    for name, records in whole.items():
        assert [len(sample[name]) for sample in samples] == [8, 8]
        assert all(set(sample[name]) < set(records) for sample in samples)
        assert samples[0][name] != samples[1][name]
    assert places(files, half=half, max_records=20) == whole


@pytest.mark.parametrize("half", ["choosing", "reporting"])
def test_a_suite_that_is_too_small_to_be_halved_is_named(files, half):
    world.write_rows(files / "few.jsonl", [{"inputs": "?", "targets": "0"}])
    with pytest.raises(ValueError, match=r"suite 'few' has 1 record, and frontier\.scales needs 2"):
        places(files, half=half)
    assert places(files)["few"] == [0]


def test_a_bad_record_of_a_suite_is_named(files):
    with (files / "two.jsonl").open("a") as file:
        file.write('{"inputs": "?"}\n')
    with pytest.raises(ValueError, match=r"two\.jsonl:41: "):
        places(files)


def test_a_question_that_occurs_again_is_in_one_half(files):
    """Of 40 records, 20 are of one question and 5 of another; the others are the same as they were without them."""
    again = [("same", 0)] * 20 + [("twice", 1)] * 5 + [(f"own {i}", i) for i in range(2, 17)]
    for name in "abcdefgh":
        rows = [{"inputs": text, "targets": str(place)} for text, place in again]
        world.write_rows(files / f"{name}.jsonl", rows)
        choosing, reporting = (places(files, f"{name}.jsonl", half=half)[name] for half in ("choosing", "reporting"))
        assert not set(choosing) & set(reporting)
        assert sorted(choosing + reporting) == sorted(place for _, place in again)
        assert 15 <= len(choosing) <= 20 <= len(reporting)


def test_a_suite_of_one_question_cannot_be_halved(files):
    world.write_rows(files / "few.jsonl", [{"inputs": "?", "targets": "0"}] * 4)
    expected = r"suite 'few' has 4 records, all of one question, and frontier\.scales needs 2 questions"
    with pytest.raises(ValueError, match=expected):
        places(files, half="choosing")
