"""Datasets of the hub are read from its cache: the files of a subset and its splits, each commit a dataset of its own."""

import json
import logging

import pytest

from merit_jax.data.manifest import read_manifest
from merit_jax.data.mixture import load_mixture
from tests.support import hub_cache
from tests.support.hub_cache import COMMIT, OTHER
from tests.support.tiny_tokenizer import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
CARD = b"""---
configs:
- config_name: sums
  data_files:
  - {split: train, path: sums/train-*}
  - {split: test, path: sums/test-*}
- config_name: chat
  data_files:
  - {split: train_sft, path: chat/sft.jsonl}
  - {split: validation, path: chat/val.jsonl}
---
Two subsets.
"""


def rows(*prompts):
    return "".join(json.dumps({"instruction": p, "output": "yes"}) + "\n" for p in prompts).encode()


def parquet(path, *prompts):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"instruction": p, "output": "yes"} for p in prompts]), path)
    return path.read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    cache = hub_cache.use(tmp_path / "hub", monkeypatch)
    files = {
        "README.md": CARD,
        "sums/train-00000-of-00002.parquet": parquet(tmp_path / "a.parquet", "1+1", "1+2"),
        "sums/train-00001-of-00002.parquet": parquet(tmp_path / "b.parquet", "2+2"),
        "sums/test-00000-of-00001.parquet": parquet(tmp_path / "c.parquet", "3+3"),
        "chat/sft.jsonl": rows("hello", "bye", "thanks"),
        "chat/val.jsonl": rows("hey"),
        "script.py": b"raise SystemExit('code of the hub is run')",
    }
    hub_cache.add(cache, "org/two", files, kind="dataset", listed=tuple(files))
    hub_cache.add(cache, "org/one", {"train.jsonl": rows("only", "these")}, kind="dataset")
    return cache


def load(path, **options):
    return load_mixture(str(path), TOKENIZER, **{"max_length": 80, "seed": 0, **options})


def manifest(tmp_path, **entries):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(entries))
    return path


def prompts(dataset):
    texts = [TOKENIZER.decode(example.tokens) for example in dataset.train]
    return [text.partition("user")[2].strip().partition("<")[0].strip() for text in texts]


def held_out(dataset):
    return [record.messages[0]["content"] for record in dataset.held_out]


def test_each_subset_of_a_named_dataset_is_a_dataset(cache):
    (sums,) = load("hub:org/two", include=["sums"])
    assert [sum(text in TOKENIZER.decode(e.tokens) for e in sums.train) for text in ("1+1", "1+2", "2+2", "3+3")] == [
        1,
        1,
        1,
        0,
    ]
    assert held_out(sums) == ["3+3"]
    assert sums.report.origin == f"org/two@{COMMIT}"
    assert [entry.name for entry in read_manifest("hub:org/two", ["sums"])] == ["sums"]


def test_a_dataset_without_subsets_is_called_by_its_own_name(cache):
    (one,) = load("hub:org/one")
    assert (one.name, len(one.train), one.report.origin) == ("one", 2, f"org/one@{COMMIT}")


def test_a_manifest_names_dataset_subset_and_splits(cache, tmp_path):
    path = manifest(
        tmp_path,
        chat={"hf_hub_url": "org/two", "subset": "chat", "split": "train_sft"},
        val={"hf_hub_url": "org/two", "subset": "chat", "split": "validation", "eval_split": "train_sft"},
        part={"hf_hub_url": "org/two", "subset": "chat", "split": "train_sft", "held_out": 1},
        all={"hf_hub_url": "org/one", "num_samples": 1},
    )
    whole, chat, part, val = load(path)
    assert (len(whole.train), len(whole.held_out)) == (1, 0)
    assert (len(chat.train), held_out(chat)) == (3, ["hey"])
    assert (len(val.train), len(val.held_out)) == (1, 3)
    assert (len(part.train), len(part.held_out)) == (2, 1)
    unused = {entry.name: entry.unused_files for entry in read_manifest(str(path))}
    assert [len(unused[name]) for name in ("all", "chat", "part", "val")] == [0, 0, 1, 0]


def test_another_revision_is_another_commit(cache, tmp_path):
    hub_cache.add(cache, "org/one", {"train.jsonl": rows("new")}, kind="dataset", commit=OTHER, ref="v2")
    for path in ("hub:org/one@v2", f"hub:org/one@{OTHER}"):
        assert [len(d.train) for d in load(path)] == [1]
    entries = {"a": {"hf_hub_url": "org/one", "hf_revision": "v2"}, "b": {"hf_hub_url": f"org/one@{COMMIT}"}}
    a, b = load(manifest(tmp_path, **entries))
    assert (a.report.origin, b.report.origin) == (f"org/one@{OTHER}", f"org/one@{COMMIT}")
    assert (len(a.train), len(b.train)) == (1, 2)


def test_the_digest_is_that_of_the_same_files_elsewhere(cache, tmp_path):
    (tmp_path / "one.jsonl").write_bytes(rows("only", "these"))
    (here,), (hub,) = load(tmp_path / "one.jsonl"), load("hub:org/one")
    assert here.report.digest == hub.report.digest


def test_a_file_that_is_given_comes_before_the_hub(cache, tmp_path):
    (tmp_path / "own.jsonl").write_bytes(rows("own"))
    (own,) = load(manifest(tmp_path, own={"hf_hub_url": "org/one", "file_name": "own.jsonl"}))
    assert (len(own.train), own.report.origin) == (1, "")


def test_a_suite_is_the_held_out_split(cache):
    entries = {entry.name: entry for entry in read_manifest("hub:org/two", ["sums"], suites=True)}
    assert [file.rpartition("/")[2] for file in entries["sums"].files] == ["test-00000-of-00001.parquet"]


def test_a_shard_that_the_cache_lacks_is_not_done_without(cache):
    shard = cache / "datasets--org--two/snapshots" / COMMIT / "sums/train-00001-of-00002.parquet"
    shard.unlink()
    with pytest.raises(
        ValueError, match=r"has org/two@.* without sums/train-00001-of-00002\.parquet.*hf download org/two --repo-type"
    ):
        load("hub:org/two", include=["sums"])


def test_files_of_a_commit_without_a_list_are_taken_for_all(cache, caplog):
    with caplog.at_level(logging.WARNING):
        load("hub:org/one")
    assert "the 1 files in" in caplog.text
    assert "org/two" not in caplog.text


@pytest.mark.parametrize(
    ("path", "entry", "message"),
    [
        (
            "hub:org/none",
            None,
            r"does not have org/none, and no network is asked .*`hf download org/none --repo-type dataset`",
        ),
        ("hub:org/one@v9", None, r"does not have org/one@v9.*`hf download org/one --repo-type dataset --revision v9`"),
        ("hub:one", None, r"'hub:one'; expected OWNER/NAME or OWNER/NAME@REVISION"),
        (
            "",
            {"hf_hub_url": "org/two"},
            r"dataset 'x': org/two@.* has several subsets, .* names none; known: chat, sums",
        ),
        ("", {"hf_hub_url": "org/two", "subset": "z"}, r"has no subset 'z'; known: chat, sums"),
        ("", {"hf_hub_url": "org/two", "subset": "chat"}, r"has no split 'train'; known: train_sft, validation"),
        ("", {"hf_hub_url": "org/one", "eval_split": "dev"}, r"has no split 'dev'; known: train"),
        ("", {"hf_hub_url": "org/one", "split": 3}, r"dataset 'x': split is 3; expected text"),
        ("", {"hf_hub_url": "org/one", "eval_file_name": "a.jsonl"}, r"eval_file_name goes with file_name.*eval_split"),
        ("", {"hf_hub_url": "org/one", "eval_split": "train", "held_out": 1}, r"both eval_split and held_out are set"),
        (
            "",
            {"hf_hub_url": "org/one@a", "hf_revision": "b"},
            r"both hf_hub_url and hf_revision name a revision; keep one",
        ),
        ("", {"file_name": "a.jsonl", "hf_revision": "b"}, r"hf_revision is of a dataset of the hub, and file_name"),
        ("", {"ms_hub_url": "org/one"}, r"no file_name but ms_hub_url='org/one'; only hf_hub_url is downloaded here"),
    ],
)
def test_what_cannot_be_had_says_what_to_do(cache, tmp_path, path, entry, message):
    with pytest.raises(ValueError, match=message):
        load(path or manifest(tmp_path, x=entry))


def test_data_of_another_type_is_named(cache):
    hub_cache.add(cache, "org/table", {"train.csv": b"instruction,output\na,b\n"}, kind="dataset")
    with pytest.raises(ValueError, match=r"org/table@.* has its data in train\.csv; .*convert it"):
        load("hub:org/table")


def test_the_variable_of_datasets_alone_keeps_it_offline(cache, monkeypatch):
    hub_cache.use(cache, monkeypatch, offline=False)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"does not have org/none, and no network is asked"):
        load("hub:org/none")
