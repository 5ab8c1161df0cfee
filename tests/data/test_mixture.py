"""Reading a mixture: samples depend on seed and name alone, and a cached dataset is the one that was read."""

import json

import numpy as np
import pytest
from etils import epath

from merit_jax.core.types import Example
from merit_jax.data.chat_template import encode
from merit_jax.data.dataset import read_dataset
from merit_jax.data.manifest import read_manifest
from merit_jax.data.mixture import load_mixture
from merit_jax.data.record_splits import Limits
from merit_jax.data.token_cache import TokenTable, as_table, load_table, save_table
from tests.support.tiny_tokenizer import CHATML_GENERATION, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def flan(n, prefix="q"):
    return [{"inputs": f"{prefix}{i}", "targets": "yes" * (1 + i % 3)} for i in range(n)]


def texts(examples):
    return [TOKENIZER.decode(example.tokens) for example in examples]


def prompts(records):
    return [record.messages[0]["content"] for record in records]


@pytest.fixture
def folder(tmp_path):
    for name, rows in {"a": 9, "b": 12}.items():
        write(tmp_path / f"{name}.train.jsonl", flan(rows, name))
        write(tmp_path / f"{name}.test.jsonl", flan(5, name.upper()))
    return tmp_path


def load(folder, tokenizer=TOKENIZER, **options):
    return load_mixture(f"{folder}/*.train.jsonl", tokenizer, **{"max_length": 100, "seed": 0, **options})


def test_datasets_are_sorted_and_hold_what_their_files_hold(folder):
    a, b = load(folder)
    assert (a.name, b.name) == ("a", "b")
    assert prompts(b.held_out) == [f"B{i}" for i in range(5)]
    for i, example in enumerate(b.train):
        messages = ({"role": "user", "content": f"b{i}"}, {"role": "assistant", "content": "yes" * (1 + i % 3)})
        expected, _ = encode(TOKENIZER, messages, 100)
        np.testing.assert_array_equal(example.tokens, expected.tokens)
        np.testing.assert_array_equal(example.supervised, expected.supervised)
    assert len(b.train) == 12


def test_the_report_counts_what_was_read(folder):
    longest = max(len(example.tokens) for example in load(folder)[0].train)
    dataset = load(folder, max_length=longest - 1)[0]
    assert dataset.report.files == (f"{folder}/a.train.jsonl", f"{folder}/a.test.jsonl")
    assert dataset.report.rows == 9
    assert dataset.report.truncated == 3
    assert dataset.report.tokens == sum(example.supervised.sum() for example in dataset.train)
    assert dataset.report.total_tokens == sum(len(example.tokens) for example in dataset.train)


def test_samples_do_not_change_when_a_dataset_is_added(folder):
    before = load(folder, max_train=4, max_held_out=3)
    write(folder / "aa.train.jsonl", flan(7))
    after = [dataset for dataset in load(folder, max_train=4, max_held_out=3) if dataset.name != "aa"]
    for old, new in zip(before, after, strict=True):
        assert texts(old.train) == texts(new.train)
        assert old.held_out == new.held_out


def test_a_larger_sample_keeps_the_smaller_one(folder):
    small, large, whole = (load(folder, include=["b"], max_train=n, max_held_out=n // 2)[0] for n in (4, 7, 0))
    assert (len(small.train), len(large.train)) == (4, 7)
    assert set(texts(small.train)) < set(texts(large.train)) < set(texts(whole.train))
    assert set(prompts(small.held_out)) < set(prompts(large.held_out))


def test_datasets_and_seeds_draw_different_samples(folder):
    write(folder / "c.train.jsonl", flan(12, "b"))
    b, c = load(folder, include=["b", "c"], max_train=6)
    again = load(folder, include=["b"], max_train=6, seed=1)[0]
    assert len({tuple(texts(dataset.train)) for dataset in (b, c, again)}) == 3


@pytest.mark.parametrize(("held_out", "count"), [(3, 3), (0.25, 3)])
def test_held_out_rows_are_split_off_the_training_file(tmp_path, held_out, count):
    write(tmp_path / "a.jsonl", flan(12))
    (tmp_path / "m.json").write_text(json.dumps({"a": {"file_name": "a.jsonl", "held_out": held_out}}))
    (dataset,) = load_mixture(str(tmp_path / "m.json"), TOKENIZER, max_length=100, seed=0)
    held_out = {f"user\n{prompt}<|im_end|>" for prompt in prompts(dataset.held_out)}
    assert len(held_out) == count
    assert len(dataset.train) == 12 - count
    assert not any(prompt in text for prompt in held_out for text in texts(dataset.train))


def manifest(tmp_path, rows, **entry):
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "m.json").write_text(json.dumps({"a": {"file_name": "a.json", **entry}}))
    return str(tmp_path / "m.json")


def test_llama_factory_columns_and_tags_reach_the_text(tmp_path):
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    rows = [{"talk": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}]
    path = manifest(tmp_path, rows, formatting="sharegpt", columns={"messages": "talk"}, tags=tags)
    (dataset,) = load_mixture(path, TOKENIZER, max_length=100, seed=0)
    assert texts(dataset.train)[0].endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho<|im_end|>")
    path = manifest(
        tmp_path, [{"p": "hi", "q": "you", "r": "ho"}], columns={"prompt": "p", "query": "q", "response": "r"}
    )
    (dataset,) = load_mixture(path, TOKENIZER, max_length=100, seed=0)
    assert texts(dataset.train)[0].endswith("<|im_start|>user\nhi\nyou<|im_end|>\n<|im_start|>assistant\nho<|im_end|>")


def test_num_samples_takes_that_many_rows(tmp_path):
    rows = [{"instruction": f"q{i}", "output": "yes"} for i in range(8)]
    (dataset,) = load_mixture(manifest(tmp_path, rows, num_samples=3), TOKENIZER, max_length=100, seed=0)
    assert len(set(texts(dataset.train))) == 3
    with pytest.raises(ValueError, match=r"dataset 'a': num_samples is 9, .* has 8 training rows"):
        load_mixture(manifest(tmp_path, rows, num_samples=9), TOKENIZER, max_length=100, seed=0)


@pytest.mark.parametrize("held_out", [8, 0.99, 0.01])
def test_a_split_that_leaves_one_side_empty_is_refused(tmp_path, held_out):
    rows = [{"instruction": f"q{i}", "output": "yes"} for i in range(8)]
    with pytest.raises(ValueError, match=f"dataset 'a': held_out = {held_out} takes . of the 8 rows"):
        load_mixture(manifest(tmp_path, rows, held_out=held_out), TOKENIZER, max_length=100, seed=0)


def test_a_record_that_does_not_encode_is_named(folder):
    write(folder / "b.test.jsonl", [*flan(2), {"inputs": "long" * 50, "targets": "yes"}])
    with pytest.raises(ValueError, match=r"b.test.jsonl:3: no supervised token is left after truncation to 100"):
        load(folder)


def test_collected_errors_name_every_bad_record(folder):
    bad = [{"inputs": "q"}, {"inputs": "q", "targets": ""}, {"inputs": "long" * 50, "targets": "yes"}, *flan(2)]
    write(folder / "a.train.jsonl", bad)
    errors = []
    entry = read_manifest(f"{folder}/a.train.jsonl")[0]
    dataset = read_dataset(entry, TOKENIZER, Limits(100), seed=0, on_error=errors.append)
    assert len(dataset.train) == 2
    assert [str(error).split(": ")[0] for error in errors] == [f"{folder}/a.train.jsonl:{line}" for line in (1, 2, 3)]


def equal(left, right):
    return (
        left.name == right.name
        and left.report == right.report
        and left.held_out == right.held_out
        and all(np.array_equal(x, y) for x, y in zip(table_arrays(left), table_arrays(right), strict=True))
    )


def table_arrays(dataset):
    return dataset.train.tokens, dataset.train.supervised, dataset.train.offsets


def test_a_cached_mixture_equals_a_fresh_one_and_is_not_tokenised_again(folder, tmp_path):
    fresh = load(folder, max_length=41, max_train=6, cache_dir=str(tmp_path / "cache"))

    class Untouched:
        """Has the identity of the tokenizer, and tokenises nothing."""

        def __getattr__(self, name):
            assert name in (
                "backend_tokenizer",
                "chat_template",
                "special_tokens_map",
                "extra_rules",
                "embedding_rows",
            ), name
            return getattr(TOKENIZER, name, None)

    again = load(folder, Untouched(), max_length=41, max_train=6, cache_dir=str(tmp_path / "cache"))
    assert all(map(equal, fresh, again))
    assert sum(dataset.report.truncated for dataset in fresh) > 0


CHANGES = {
    "file": lambda folder: write(folder / "a.train.jsonl", flan(8, "z")) or {},
    "held-out file": lambda folder: write(folder / "a.test.jsonl", flan(4, "z")) or {},
    "template": lambda folder: {"tokenizer": tiny_tokenizer(CHATML_GENERATION)},
    "max_length": lambda folder: {"max_length": 40},
    "max_train": lambda folder: {"max_train": 5},
    "seed": lambda folder: {"seed": 1},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_cached_dataset_is_read_anew_when_its_inputs_change(folder, tmp_path, change):
    options = {"max_length": 41, "max_train": 6, "include": ["a"], "cache_dir": str(tmp_path / "cache")}
    load(folder, **options)
    options |= CHANGES[change](folder)
    cached, fresh = load(folder, **options), load(folder, **{**options, "cache_dir": None})
    assert equal(cached[0], fresh[0])
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(file, array, allow_pickle):
        file.write(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space left"):
            load(folder, cache_dir=tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    assert all(map(equal, load(folder, cache_dir=tmp_path / "cache"), load(folder)))


def test_a_half_written_cache_is_written_again(folder, tmp_path):
    load(folder, include=["a"], cache_dir=tmp_path / "cache")
    (written,) = (tmp_path / "cache").iterdir()
    (written / "offsets.npy").unlink()
    (written / "tokens.npy").write_bytes(b"half")
    assert equal(load(folder, include=["a"], cache_dir=tmp_path / "cache")[0], load(folder, include=["a"])[0])


def test_a_damaged_cache_is_refused(folder, tmp_path):
    load(folder, include=["a"], cache_dir=tmp_path / "cache")
    (written,) = (tmp_path / "cache").iterdir()
    (written / "tokens.npy").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"tokens.npy: damaged token cache .*; delete"):
        load(folder, include=["a"], cache_dir=tmp_path / "cache")


def test_the_digest_follows_files_and_manifest_options(tmp_path):
    rows = [{"instruction": f"q{i}", "output": "yes"} for i in range(8)]
    variants = [({}, rows), ({}, rows), ({"held_out": 2}, rows), ({"num_samples": 3}, rows), ({}, rows[:7])]
    digests = [
        load_mixture(manifest(tmp_path, data, **options), TOKENIZER, max_length=100, seed=0)[0].report.digest
        for options, data in variants
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_a_table_is_the_list_it_was_made_of(tmp_path):
    rng = np.random.default_rng(0)
    examples = [Example(rng.integers(0, 9, n).astype(np.int32), rng.random(n) < 0.5) for n in (3, 1, 5)]
    folder = epath.Path(tmp_path / "t")
    made = as_table(examples, truncated=2, unended=1, unseen=3)
    save_table(made, folder)
    for table in (made, load_table(folder)):
        assert isinstance(table, TokenTable)
        assert as_table(table) is table
        assert (table.truncated, table.unended, table.unseen) == (2, 1, 3)
        assert table.lengths.tolist() == [3, 1, 5]
        assert table.supervised_counts.tolist() == [example.supervised.sum() for example in examples]
        for index in range(-3, 3):
            np.testing.assert_array_equal(table[index].tokens, examples[index].tokens)
            np.testing.assert_array_equal(table[index].supervised, examples[index].supervised)
        with pytest.raises(IndexError):
            table[3]


def test_an_empty_table_counts_nothing():
    table = as_table([])
    assert len(table) == 0
    assert table.lengths.tolist() == table.supervised_counts.tolist() == []


def test_an_example_without_tokens_is_refused():
    empty = Example(np.zeros(0, np.int32), np.zeros(0, bool))
    with pytest.raises(ValueError, match="example 0 has no token"):
        as_table([empty])


@pytest.mark.parametrize("name", ["tokens.npy", "supervised.npy", "checksums.json"])
def test_a_cache_with_one_bit_changed_is_refused(folder, tmp_path, name):
    load(folder, include=["a"], cache_dir=tmp_path / "cache")
    (written,) = (tmp_path / "cache").iterdir()
    content = bytearray((written / name).read_bytes())
    content[-3] ^= 1
    (written / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged token cache .*; delete"):
        load(folder, include=["a"], cache_dir=tmp_path / "cache")
