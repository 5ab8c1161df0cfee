"""Files are taken for training or held-out data by the split words in their names, and shards for one dataset."""

import json

import pytest

from merit_jax.data.manifest import Entry, read_manifest, taken_for, taken_for_lines
from merit_jax.data.mixture import load_mixture
from merit_jax.data.records import entry_digest
from merit_jax.data.splits import HELD_OUT, TRAIN, parse_name
from merit_jax.evaluation.suites import load_suites, suite_digests
from tests.support.tiny_tokenizer import tiny_tokenizer


def write(folder, *names):
    """Writes files whose one row says which file it is from."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"inputs": name, "targets": "yes"}) + "\n")


def shown(folder, entry):
    files = (entry.files, entry.held_out_files, entry.unused_files)
    return (entry.name, *([file.removeprefix(f"{folder}/") for file in part] for part in files))


def read(folder, pattern):
    return [shown(folder, entry) for entry in read_manifest(f"{folder}/{pattern}")]


@pytest.mark.parametrize("word", [*TRAIN, *HELD_OUT, "Test", "VAL"])
def test_a_split_word_is_found_as_name_suffix_prefix_and_shard(word):
    kind = word.lower()
    for stem, dataset in {
        word: "",
        f"birds.{word}": "birds",
        f"birds_{word}": "birds",
        f"birds-{word}": "birds",
        f"big birds {word}": "big birds",
        f"{word}_birds": "birds",
        f"{word}-00000-of-00001": "",
        f"{word}-00003-of-00010-3f2ab0c1d2e3f405": "",
        f"birds-{word}-00003-of-00010": "birds",
    }.items():
        assert parse_name(f"x/{stem}.parquet")[1:3] == (dataset, kind), stem


@pytest.mark.parametrize("stem", ["attest", "contest_data", "devices", "evaluations", "trains", "a.testx", "validity"])
def test_a_word_that_only_begins_or_ends_like_a_split_is_none(stem):
    assert parse_name(f"{stem}.jsonl")[1:3] == (stem, "")


def test_a_name_that_ends_in_train_is_the_dataset_before_it():
    assert parse_name("test.train.jsonl")[1:3] == ("test", "train")


LAYOUTS = {
    "plain": (
        ["birds/train.jsonl", "birds/validation.jsonl", "birds/test.jsonl"],
        "birds/*.jsonl",
        [("birds", ["birds/train.jsonl"], ["birds/validation.jsonl"], ["birds/test.jsonl"])],
    ),
    "hub": (
        [f"{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")],
        "*.parquet",
        [
            (
                ...,
                ["train-00000-of-00001.parquet"],
                ["validation-00000-of-00001.parquet"],
                ["test-00000-of-00001.parquet"],
            )
        ],
    ),
    "hub repositories": (
        ["birds/data/train-00000-of-00001.parquet", "cats/data/train-00000-of-00001-ab12.parquet"],
        "*/data/*.parquet",
        [
            ("birds", ["birds/data/train-00000-of-00001.parquet"], [], []),
            ("cats", ["cats/data/train-00000-of-00001-ab12.parquet"], [], []),
        ],
    ),
    "converted": (
        ["birds/train/0001.parquet", "birds/train/0000.parquet", "birds/test/0000.parquet"],
        "**/*.parquet",
        [("birds", ["birds/train/0000.parquet", "birds/train/0001.parquet"], ["birds/test/0000.parquet"], [])],
    ),
    "folders": (
        ["train/a.jsonl", "train/b.jsonl", "dev/a.jsonl"],
        "*/*.jsonl",
        [("a", ["train/a.jsonl"], ["dev/a.jsonl"], []), ("b", ["train/b.jsonl"], [], [])],
    ),
    "suffix": (
        ["birds_train.jsonl", "birds_valid.jsonl", "birds.val.jsonl", "birds_test.jsonl"],
        "*.jsonl",
        [("birds", ["birds_train.jsonl"], ["birds_valid.jsonl"], ["birds.val.jsonl", "birds_test.jsonl"])],
    ),
    "every word": (
        [f"a.{word}.jsonl" for word in ("train", "test", "dev", "val", "validation")],
        "*.jsonl",
        [("a", ["a.train.jsonl"], ["a.validation.jsonl"], ["a.val.jsonl", "a.dev.jsonl", "a.test.jsonl"])],
    ),
    "types": (
        ["a.jsonl", "x.train.parquet", "x.test.json"],
        "*",
        [("a", ["a.jsonl"], [], []), ("x", ["x.train.parquet"], ["x.test.json"], [])],
    ),
    "prefix": (
        ["train_birds.jsonl", "Test_birds.jsonl"],
        "*.jsonl",
        [("birds", ["train_birds.jsonl"], ["Test_birds.jsonl"], [])],
    ),
    "without a word": (["x.jsonl", "x-eval.jsonl"], "*.jsonl", [("x", ["x.jsonl"], ["x-eval.jsonl"], [])]),
    "outside the glob": (
        ["a.train.jsonl", "a.val.jsonl", "a.test.jsonl", "a.test.json", "b.jsonl", "c.test.jsonl"],
        "*.train.jsonl",
        [("a", ["a.train.jsonl"], ["a.val.jsonl"], ["a.test.jsonl"])],
    ),
    "shards": (
        [f"birds-{n:05}-of-00003.jsonl" for n in (2, 0, 1)],
        "*.jsonl",
        [("birds", [f"birds-{n:05}-of-00003.jsonl" for n in range(3)], [], [])],
    ),
    "shards from one": (
        ["birds-00001-of-00002.jsonl", "birds-00002-of-00002.jsonl"],
        "*.jsonl",
        [("birds", ["birds-00001-of-00002.jsonl", "birds-00002-of-00002.jsonl"], [], [])],
    ),
    "named itself": (["test.jsonl", "train.jsonl"], "test.jsonl", [("test", ["test.jsonl"], [], [])]),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_no_held_out_file_is_trained_on_in_any_layout(tmp_path, case):
    files, pattern, expected = LAYOUTS[case]
    write(tmp_path, *files)
    found = read(tmp_path, pattern)
    assert found == [(tmp_path.name if name is ... else name, *rest) for name, *rest in expected]


def test_the_name_of_a_folder_does_not_depend_on_how_it_is_written(tmp_path, monkeypatch):
    write(tmp_path, "data/train.jsonl", "data/test.jsonl")
    monkeypatch.chdir(tmp_path / "data")
    names = [read_manifest(pattern)[0].name for pattern in ("*.jsonl", "./*.jsonl", f"{tmp_path}/data/*.jsonl")]
    assert names == ["data"] * 3


REFUSED = {
    "no training file": (
        ["birds_test.jsonl"],
        "birds_test.jsonl: its name says held-out data .test., without a training",
    ),
    "several": (["a.val.jsonl", "b.val.jsonl"], r"a.val.jsonl \(and 1 more such\): its name says"),
    "missing shard": (
        [f"train-{n:05}-of-00005.parquet" for n in (0, 2, 4)],
        r"train-00001-of-00005.parquet: this shard and 1 more of a dataset is missing; add it",
    ),
    "missing held-out shard": (
        ["train.jsonl", "test-00001-of-00002.jsonl"],
        "test-00002-of-00002.jsonl|test-00000-of-00002.jsonl",
    ),
    "shard twice": (
        ["train-00000-of-00001-aa.parquet", "train-00000-of-00001-bb.parquet"],
        "are the same shard; delete one",
    ),
    "shards of two downloads": (
        ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"],
        "both named .*rename one",
    ),
    "past the count": (["a-00007-of-00001.jsonl"], "a-00007-of-00001.jsonl: its number is past the 1 shards"),
    "endless count": (["a-00000-of-99999999999999.jsonl"], "a-00001-of-99999999999999.jsonl: this shard and 999"),
    "two test files": (["a.jsonl", "a.test.jsonl", "a_test.jsonl"], "are both named 'a'; rename one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_do_not_make_a_dataset_are_refused_by_name(tmp_path, case):
    files, reason = REFUSED[case]
    write(tmp_path, *files)
    with pytest.raises(ValueError, match=reason):
        read_manifest(f"{tmp_path}/*")


def test_a_folder_is_no_mixture(tmp_path):
    with pytest.raises(ValueError, match=r"a folder; give a glob of its files, such as .*/\*.jsonl"):
        read_manifest(str(tmp_path))


def manifest(folder, **entry):
    (folder / "m.json").write_text(json.dumps({"a": entry}))
    (found,) = read_manifest(str(folder / "m.json"))
    return shown(folder, found)[1:]


def test_a_manifest_names_files_folders_globs_and_lists(tmp_path):
    write(tmp_path, "d/b.jsonl", "d/a.jsonl", "d/b.test.jsonl", "d/b.val.jsonl", "test.jsonl", "x[1].jsonl")
    (tmp_path / "d/README.md").touch()
    folder = (["d/a.jsonl", "d/b.jsonl"], ["d/b.val.jsonl"], ["d/b.test.jsonl"])
    assert manifest(tmp_path, file_name="d") == folder
    assert manifest(tmp_path, file_name="d/*.jsonl") == folder
    assert manifest(tmp_path, file_name="test.jsonl") == (["test.jsonl"], [], [])
    assert manifest(tmp_path, file_name="x[1].jsonl") == (["x[1].jsonl"], [], [])
    assert manifest(tmp_path, file_name=["test.jsonl", "d/b.jsonl"]) == (["test.jsonl", "d/b.jsonl"], [], [])
    assert manifest(tmp_path, file_name="d", held_out=1) == (folder[0], [], ["d/b.val.jsonl", "d/b.test.jsonl"])
    named = manifest(tmp_path, file_name="d", eval_file_name=["test.jsonl", "d/*.test.jsonl"])
    assert named == (folder[0], ["test.jsonl", "d/b.test.jsonl"], ["d/b.val.jsonl"])


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            {"file_name": "d/*.test.jsonl"},
            r"'a': file_name names held-out files alone \(b.test.jsonl\); .* name the file",
        ),
        ({"file_name": "d/b.jsonl", "eval_file_name": "t/*"}, "eval_file_name names training files alone"),
        ({"file_name": ["d/b.jsonl", "d/*.jsonl"]}, "b.jsonl: the file is named twice"),
        ({"file_name": "none/*.jsonl"}, r"none/\*.jsonl: no file matches"),
        ({"file_name": "empty"}, "empty: a folder without .jsonl"),
        ({"file_name": "s"}, "t-00001-of-00002.jsonl: this shard of a dataset is missing"),
    ],
)
def test_a_manifest_that_names_no_data_is_refused(tmp_path, entry, reason):
    write(tmp_path, "d/b.jsonl", "d/b.test.jsonl", "t/train.jsonl", "s/t-00000-of-00002.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=reason):
        manifest(tmp_path, **entry)


def test_shards_are_read_in_order_and_all_count_for_the_digest(tmp_path):
    shards = [f"birds-{n:05}-of-00002.jsonl" for n in range(2)]
    write(tmp_path, *shards)
    tokenizer = tiny_tokenizer()
    (before,) = load_mixture(f"{tmp_path}/*.jsonl", tokenizer, max_length=200, seed=0)
    assert [shards[n] in tokenizer.decode(before.train[n].tokens) for n in range(2)] == [True, True]
    (tmp_path / shards[1]).write_text(json.dumps({"inputs": "q", "targets": "no"}))
    (after,) = load_mixture(f"{tmp_path}/*.jsonl", tokenizer, max_length=200, seed=0)
    assert before.report.digest != after.report.digest
    one, two = (str(tmp_path / shard) for shard in shards)
    assert entry_digest(Entry("a", (one, two))) != entry_digest(Entry("a", (one,), (two,)))


def test_groups_are_read_from_several_files(tmp_path):
    for name, tasks in {"x.jsonl": "ab", "y.jsonl": "ba"}.items():
        rows = [{"inputs": f"{name} {task}", "targets": "yes", "task": task} for task in tasks]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "m.json").write_text(json.dumps({"all": {"file_name": ["x.jsonl", "y.jsonl"], "group_by": "task"}}))
    a, b = load_mixture(str(tmp_path / "m.json"), tiny_tokenizer(), max_length=200, seed=0)
    texts = [[tiny_tokenizer().decode(example.tokens) for example in dataset.train] for dataset in (a, b)]
    assert [["x.jsonl a" in x, "y.jsonl a" in y] for x, y in texts[:1]] == [[True, True]]
    assert [["x.jsonl b" in x, "y.jsonl b" in y] for x, y in texts[1:]] == [[True, True]]


def test_what_files_are_taken_for_is_said(tmp_path, caplog):
    write(tmp_path, "a.train.jsonl", "a.val.jsonl", "a.test.jsonl", *(f"b-{n:05}-of-00005.jsonl" for n in range(5)))
    with caplog.at_level("INFO", "merit_jax"):
        load_mixture(f"{tmp_path}/*.jsonl", tiny_tokenizer(), max_length=200, seed=0)
    assert [record.getMessage() for record in caplog.records] == [
        "a: trained on: a.train.jsonl; held out: a.val.jsonl; not used: a.test.jsonl",
        "b: trained on: b-00000-of-00005.jsonl, b-00001-of-00005.jsonl, b-00002-of-00005.jsonl and 2 more",
    ]


def test_the_files_of_many_datasets_are_summed_up_but_none_that_is_not_used_is_left_out():
    entries = [Entry(f"{n}", (f"{n}.jsonl",)) for n in range(30)]
    entries[25] = entries[25]._replace(unused_files=("25.test.jsonl",))
    lines = taken_for_lines(entries, 20)
    assert lines[:20] == [taken_for(entry) for entry in entries[:20]]
    assert lines[20:] == [
        "25: trained on: 25.jsonl; not used: 25.test.jsonl",
        "and 9 more datasets without files that are not used",
    ]


def test_suites_are_the_held_out_files_where_there_are_some(tmp_path, caplog):
    write(tmp_path, "arc_test.jsonl", "x.train.jsonl", "x.test.jsonl", "plain.jsonl", "d/validation.jsonl")
    with caplog.at_level("INFO", "merit_jax"):
        suites = load_suites(f"{tmp_path}/*.jsonl")
    rows = {name: [record.messages[0]["content"] for record in records] for name, records in suites.items()}
    assert rows == {"arc": ["arc_test.jsonl"], "plain": ["plain.jsonl"], "x": ["x.test.jsonl"]}
    assert [record.getMessage() for record in caplog.records] == [
        "suite arc: evaluated: arc_test.jsonl",
        "suite plain: evaluated: plain.jsonl",
        "suite x: evaluated: x.test.jsonl; not used: x.train.jsonl",
    ]
    (tmp_path / "m.json").write_text(json.dumps({"d": {"file_name": "d"}, "x": {"file_name": "x.train.jsonl"}}))
    assert [shown(tmp_path, entry)[1] for entry in read_manifest(str(tmp_path / "m.json"), suites=True)] == [
        ["d/validation.jsonl"],
        ["x.train.jsonl"],
    ]
    assert set(suite_digests(str(tmp_path / "m.json"))) == {"d", "x"}
