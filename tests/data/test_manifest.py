"""A manifest or glob names each dataset once, and says what is wrong otherwise."""

import json

import pytest

from merit_jax.data.formats import ColumnMap
from merit_jax.data.manifest import Entry, read_manifest


def manifest(tmp_path, data, name="dataset_info.json"):
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


def touch(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")


LLAMA_FACTORY = {
    "identity": {"file_name": "identity.json"},
    "alpaca_en": {"hf_hub_url": "tatsu-lab/alpaca"},
    "glaive": {
        "file_name": "sub/glaive.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
        "num_samples": 100,
        "split": "train",
        "subset": "en",
    },
}


def test_llama_factorys_dataset_info_is_read_as_it_stands(tmp_path):
    entries = read_manifest(manifest(tmp_path, LLAMA_FACTORY), include=["identity", "gl*"])
    layout = ColumnMap(LLAMA_FACTORY["glaive"]["columns"], LLAMA_FACTORY["glaive"]["tags"])
    assert entries == (
        Entry("glaive", (str(tmp_path / "sub/glaive.json"),), format="sharegpt", layout=layout, num_samples=100),
        Entry("identity", (str(tmp_path / "identity.json"),)),
    )


def test_yaml_holds_the_same_manifest(tmp_path):
    text = "b: {file_name: b.jsonl, held_out: 0.1}\na:\n  file_name: /data/a.jsonl\n  eval_file_name: c.jsonl\n"
    assert read_manifest(manifest(tmp_path, text, "m.yaml")) == (
        Entry("a", ("/data/a.jsonl",), held_out_files=(str(tmp_path / "c.jsonl"),)),
        Entry("b", (str(tmp_path / "b.jsonl"),), held_out=0.1),
    )


def test_a_glob_pairs_training_and_test_files_by_stem(tmp_path):
    touch(tmp_path, "b.train.jsonl", "b.test.jsonl", "a.jsonl", "c.d.train.jsonl", "note.md")
    expected = (
        Entry("a", (str(tmp_path / "a.jsonl"),)),
        Entry("b", (str(tmp_path / "b.train.jsonl"),), held_out_files=(str(tmp_path / "b.test.jsonl"),)),
        Entry("c.d", (str(tmp_path / "c.d.train.jsonl"),)),
    )
    assert read_manifest(f"{tmp_path}/*.jsonl") == expected
    assert read_manifest(f"{tmp_path}/*.train.jsonl") == expected[1:]
    assert read_manifest(f"{tmp_path}/a.jsonl") == expected[:1]


def test_a_glob_of_json_files_is_no_manifest(tmp_path):
    touch(tmp_path, "a.train.json", "a.test.json")
    expected = Entry("a", (str(tmp_path / "a.train.json"),), held_out_files=(str(tmp_path / "a.test.json"),))
    assert read_manifest(f"{tmp_path}/*.train.json") == (expected,)


def test_a_relative_glob_starts_in_the_current_folder(tmp_path, monkeypatch):
    touch(tmp_path, "x/a.jsonl", "y/b.jsonl")
    monkeypatch.chdir(tmp_path)
    assert [(entry.name, *entry.files) for entry in read_manifest("*/*.jsonl")] == [
        ("a", "x/a.jsonl"),
        ("b", "y/b.jsonl"),
    ]


def test_an_include_that_matches_nothing_lists_the_known_names(tmp_path):
    touch(tmp_path, "a.jsonl", "b.jsonl")
    with pytest.raises(ValueError, match=r"no dataset matches \['c', 'd\*'\]; known: a, b"):
        read_manifest(f"{tmp_path}/*.jsonl", include=["a", "c", "d*"])


FILE = {"file_name": "a.jsonl"}
BAD = {
    "another hub": (
        {"a": {"ms_hub_url": "x/y"}},
        r"dataset 'a': no file_name but ms_hub_url='x/y'; .* download the data and set",
    ),
    "no file": ({"a": {"formatting": "alpaca"}}, r"dataset 'a': no file_name; only hf_hub_url is downloaded"),
    "unknown key": ({"a": {**FILE, "colums": {}}}, r"dataset 'a': unknown keys \['colums'\]; known: file_name"),
    "unknown format": ({"a": {**FILE, "formatting": "x"}}, r"unknown formatting in .*dataset 'a': 'x'; known: alpaca"),
    "video column": (
        {"a": {**FILE, "columns": {"videos": "v"}}},
        r"columns: cannot use \['videos'\] \(only conversations of text and images",
    ),
    "group by nothing": (
        {"a": {**FILE, "group_by": ""}},
        r"dataset 'a': group_by is ''; expected the name of a column",
    ),
    "images outside": ({"a": {**FILE, "image_root": "../x"}}, r"'../x' leaves the manifest's folder; .* absolute path"),
    "columns no object": ({"a": {**FILE, "columns": ["i"]}}, r"columns: expected an object of strings, got \['i'\]"),
    "unknown tag": ({"a": {**FILE, "tags": {"x_tag": "i"}}}, r"tags: cannot use \['x_tag'\]; known: role_tag"),
    "other split": ({"a": {**FILE, "split": "test"}}, r"dataset 'a': a file has one split, 'train', got 'test'"),
    "preferences": ({"a": {**FILE, "ranking": True}}, r"dataset 'a': preference pairs"),
    "outside": ({"a": {"file_name": "../a.jsonl"}}, r"'../a.jsonl' leaves the manifest's folder; .* absolute path"),
    "empty list": ({"a": {"file_name": []}}, r"dataset 'a': an empty list of files; name one"),
    "no string": ({"a": {"file_name": 3}}, r"dataset 'a': names of files and folders must be strings, got 3"),
    "held out twice": ({"a": {**FILE, "held_out": 3, "eval_file_name": "b"}}, r"both eval_file_name and held_out"),
    "held out whole": ({"a": {**FILE, "held_out": 1.5}}, r"held_out is 1.5; expected a count, or a fraction below 1"),
    "negative": ({"a": {**FILE, "num_samples": -1}}, r"num_samples is -1; expected a count"),
    "half a sample": ({"a": {**FILE, "num_samples": 0.5}}, r"num_samples is 0.5; expected a count"),
    "text for a count": ({"a": {**FILE, "num_samples": "9"}}, r"num_samples is '9'; expected a count"),
    "records": ([{"inputs": "a"}], r"expected an object {dataset name: {file_name: ...}}; to name record files"),
    "nothing": ({}, r"expected an object"),
    "twice": ('{"a": {"file_name": "a"}, "a": {"file_name": "b"}}', r"duplicate names \['a'\]; rename"),
    "cut off": ('{"a": {"file_name": "a"', r"not a readable manifest .*mend the syntax"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_manifest_is_refused_with_path_and_reason(tmp_path, case):
    data, reason = BAD[case]
    with pytest.raises(ValueError, match=reason) as error:
        read_manifest(manifest(tmp_path, data))
    assert "dataset_info.json" in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: {file_name: a}\na: {file_name: b}\n", r"m.yaml: duplicate names \['a'\]"),
        ("a: {file_name: a, file_name: b}\n", r"m.yaml: duplicate names \['file_name'\]"),
        ("a: {file_name", r"m.yaml: not a readable manifest"),
        ("a: !!python/object/apply:os.getcwd []", r"m.yaml: not a readable manifest"),
    ],
)
def test_bad_yaml_is_refused(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason):
        read_manifest(manifest(tmp_path, text, "m.yaml"))


@pytest.mark.parametrize(
    ("files", "pattern", "reason"),
    [
        ([], "*.jsonl", r"\*.jsonl: no file matches; give a manifest"),
        ([], "m.json", r"m.json: no such manifest"),
        (["a.jsonl", "a.train.jsonl"], "*", r"a.jsonl and .*a.train.jsonl are both named 'a'; rename one"),
        (["x/a.jsonl", "y/a.jsonl"], "*/*", r"are both named 'a'"),
        (
            ["a.test.jsonl"],
            "*.jsonl",
            r"a.test.jsonl: its name says held-out data \(test\), without a training file a.train.jsonl",
        ),
    ],
)
def test_a_bad_glob_is_refused(tmp_path, files, pattern, reason):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=reason):
        read_manifest(f"{tmp_path}/{pattern}")


DEEP = "[" * 200 + "]" * 200
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
ODD = {
    "a name that is a list": ("m.yaml", "a: {file_name: a}\n? [1]\n: {file_name: b}\n", "unhashable"),
    "two names that are written alike": (
        "m.yaml",
        "1: {file_name: a}\n'1': {file_name: b}\n",
        r"duplicate names \['1'\]",
    ),
    "aliases of aliases": ("m.yaml", BOMB, "its aliases make more than"),
    "a thing in itself": ("m.yaml", "a: &a {x: *a}\n", "nested too deeply, or in itself"),
    "depth in YAML": ("m.yaml", f"a: {{file_name: {DEEP}}}", "nested (too deeply|more than 100 deep)"),
    "depth in JSON": ("m.json", f'{{"a": {{"file_name": {DEEP}}}}}', "nested more than 100 deep"),
    "endless depth": ("m.json", '{"a": ' + "[" * 100_000, "nested more than 100 deep"),
    "no day": ("m.yaml", "a: {file_name: 2001-99-99}", "month must be in 1..12"),
    "no time": ("m.yaml", "a: {file_name: !!timestamp x}", "not a readable manifest .*mend the value"),
    "no truth": ("m.yaml", "a: {file_name: !!bool x}", "not a readable manifest .*mend the value"),
    "half a character": ("m.yaml", 'a: {file_name: "\\ud800"}', "half of a surrogate pair"),
    "half a character in JSON": ("m.json", '{"a": {"file_name": "\\ud800"}}', "half of a surrogate pair"),
    "no number": ("m.json", '{"a": {"file_name": "a", "held_out": NaN}}', "NaN is no JSON"),
    "endless number": ("m.json", '{"a": {"num_samples": ' + "1" * 5000 + "}}", "limit"),
    "a key that is no text": ("m.yaml", "a: {file_name: a, 1: 2, x: 3}", r"unknown keys \[1, 'x'\]"),
    "a column that is no text": ("m.yaml", "a: {file_name: a, columns: {1: b, c: d}}", r"cannot use \[1, 'c'\]"),
    "formats": ("m.yaml", "a: {file_name: a, formatting: [x]}", r"formatting is \['x'\]; expected one of flan"),
    "a name that no file can have": ("m.json", '{"a": {"file_name": "a\\u0000"}}', "must be strings"),
}


@pytest.mark.parametrize("case", ODD)
def test_a_strange_manifest_is_refused_with_path_and_reason(tmp_path, case):
    name, text, reason = ODD[case]
    with pytest.raises(ValueError, match=rf"{name}: .*{reason}") as caught:
        read_manifest(manifest(tmp_path, text, name))
    assert type(caught.value) is ValueError


def test_invalid_utf8_in_a_manifest_is_named(tmp_path):
    (tmp_path / "m.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r"m.json: not a readable manifest \(.*utf-8"):
        read_manifest(str(tmp_path / "m.json"))


def test_an_anchor_may_be_used_often(tmp_path):
    text = "base: &b {file_name: a, tags: &t {role_tag: r}}\n" + "".join(
        f"d{i}: {{file_name: a, tags: *t}}\n" for i in range(300)
    )
    assert len(read_manifest(manifest(tmp_path, text, "m.yaml"))) == 301
