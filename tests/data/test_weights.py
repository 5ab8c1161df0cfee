"""Weights of datasets: every example as often as its weight says, counted wherever examples and tokens are."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from merit_jax.core.types import Branch, DatasetSlice
from merit_jax.data.bucketing import calibration_examples
from merit_jax.data.loader import training_batches
from merit_jax.data.mixture import load_mixture
from merit_jax.data.mixture_part import dataset_part
from merit_jax.data.sampler import BranchExamples
from merit_jax.data.weights import dataset_weights, visited_digest
from tests.support.tiny_tokenizer import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ROWS = {"a": 9, "b": 12, "c": 7}


@pytest.fixture
def folder(tmp_path):
    for name, count in ROWS.items():
        rows = [{"inputs": f"{name}{i}", "targets": "yes" * (1 + i % 3)} for i in range(count)]
        (tmp_path / f"{name}.train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def load(folder, *weights, seed=0, **options):
    return load_mixture(f"{folder}/*.train.jsonl", TOKENIZER, max_length=64, seed=seed, weights=weights, **options)


def visited(dataset, share=None, seed=0):
    """How often each example comes in a share of a dataset, by its prompt; the whole by default."""
    branch = Branch((share or DatasetSlice(dataset.name),), 0)
    examples = BranchExamples([dataset], branch, seed)
    return Counter(TOKENIZER.decode(example.tokens) for example in examples)


@pytest.mark.parametrize(("weight", "counts"), [(1, {1: 9}), (2, {2: 9}), (1.5, {1: 5, 2: 4}), (3.3, {3: 6, 4: 3})])
def test_an_epoch_visits_each_example_as_often_as_the_weight_says(folder, weight, counts):
    a, b, _ = load(folder, f"a={weight}")
    assert Counter(visited(a).values()) == counts
    assert visited(b) == visited(load(folder)[1])


@pytest.mark.parametrize(("weight", "kept"), [(0.5, 4), (0.25, 2), (0.9, 8)])
def test_below_one_a_seeded_part_is_visited_once(folder, weight, kept):
    (whole, *_), (part, *_), (other, *_) = (
        load(folder),
        load(folder, f"a={weight}"),
        load(folder, f"a={weight}", seed=7),
    )
    assert (len(part.train), sum(visited(part).values())) == (kept, kept)
    assert visited(part).keys() < visited(whole).keys()
    assert visited(part) == visited(load(folder, f"a={weight}")[0])
    assert len(other.train) == kept


def test_the_extra_half_depends_on_the_seed_and_the_name(folder):
    chosen = [
        tuple(np.bincount(d.visits))
        for seed in range(4)
        for d in load(folder, "a=1.5", "b=1.5", seed=seed)
        if d.visits is not None
    ]
    assert len(set(chosen)) > 4


def test_counts_are_those_of_the_visits(folder):
    for dataset in load(folder, "a=2.5", "b=0.5", "c=3"):
        counted = [
            (len(e.tokens), int(e.supervised.sum()))
            for e in BranchExamples([dataset], Branch((DatasetSlice(dataset.name),), 0), 0)
        ]
        report = dataset.report
        assert (report.rows, report.total_tokens, report.tokens) == (
            len(counted),
            *map(sum, zip(*counted, strict=True)),
        )
        assert dataset.visit_count == len(counted)


def test_tokens_of_training_are_those_that_the_reports_count(folder):
    datasets = load(folder, "a=2.5", "b=0.5")
    branch = Branch(tuple(DatasetSlice(d.name) for d in datasets), 3)
    batches = training_batches(datasets, branch, epochs=2, row_length=64, batch_size=2, seed=0)
    assert batches.tokens == 2 * sum(dataset.report.tokens for dataset in datasets)
    assert batches.examples == 2 * sum(dataset.visit_count for dataset in datasets)


def test_slices_are_disjoint_visits_and_together_all(folder):
    dataset, *_ = load(folder, "a=2.5")
    parts = [visited(dataset, DatasetSlice("a", part, 4)) for part in range(4)]
    assert sum(parts, Counter()) == visited(dataset)
    assert [sum(part.values()) for part in parts] == [b - a for a, b in pairwise(22 * k // 4 for k in range(5))]


def test_parts_of_rounds_are_disjoint_visits_and_together_all(folder):
    dataset, *_ = load(folder, "a=2.5")
    parts = [dataset_part(dataset, *bounds, seed=1) for bounds in ((0, 10), (10, 22))]
    assert sum((visited(part) for part in parts), Counter()) == visited(dataset)
    assert [part.report.rows for part in parts] == [10, 12]
    for part in parts:
        assert len({TOKENIZER.decode(e.tokens) for e in part.train}) == len(part.train)
        assert part.report.tokens == sum(
            int(e.supervised.sum()) for e in BranchExamples([part], Branch((DatasetSlice("a"),), 0), 0)
        )


def test_calibration_takes_an_example_once(folder):
    dataset, *_ = load(folder, "a=3")
    assert len(calibration_examples(dataset, 100, seed=0)) == 9
    inside = calibration_examples(dataset, 100, seed=0, share=DatasetSlice("a", 1, 3))
    found = Counter(TOKENIZER.decode(example.tokens) for example in inside)
    assert set(found.values()) == {1}
    assert found.keys() == visited(dataset, DatasetSlice("a", 1, 3)).keys()


def test_a_repeating_weight_changes_the_digest_of_the_visits_alone(folder):
    plain, twice, half = (load(folder, *rules)[0] for rules in ((), ("a=2",), ("a=0.5",)))
    assert plain.report.digest == twice.report.digest != half.report.digest
    assert len({visited_digest(d) for d in (plain, twice, half)}) == 3


def test_a_cached_dataset_keeps_its_weight(folder, tmp_path):
    fresh, again = (load(folder, "a=0.5", "b=1.5", cache_dir=tmp_path / "cache") for _ in range(2))
    assert [d.report for d in fresh] == [d.report for d in again]
    assert list(map(visited, fresh)) == list(map(visited, again))
    assert len(load(folder, cache_dir=tmp_path / "cache")[0].train) == 9


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (("d*=2",), r"mixture.weights: 'd\*=2': no dataset matches 'd\*'; the mixture has a, b, c"),
        (("a=0",), r"'a=0'; expected PATTERN=WEIGHT, .*; to leave a dataset out, name the others in mixture.include"),
        (("a=-1",), r"'a=-1'; expected PATTERN=WEIGHT"),
        (("a=nan",), r"'a=nan'; expected PATTERN=WEIGHT"),
        (("a=1e12",), r"'a=1e12'; expected PATTERN=WEIGHT, with a weight above 0, 10,000 at most"),
        (("a=two",), r"'a=two'; expected PATTERN=WEIGHT"),
        (("=2",), r"'=2'; expected PATTERN=WEIGHT"),
        (("2",), r"'2'; expected PATTERN=WEIGHT"),
        (("a=2", "?=3"), r"dataset 'a' has two weights, by 'a=2' and '\?=3'; keep one"),
        (("a=0.01",), r"weight 0.01 keeps none of the 9 training rows of dataset 'a'; raise it, or leave the"),
    ],
)
def test_rules_that_are_refused(folder, rules, message):
    with pytest.raises(ValueError, match=message):
        load(folder, *rules)


def test_a_rule_may_mean_a_dataset_elsewhere():
    assert dataset_weights(["a"], ["z=2"], ["z"]) == dataset_weights(["a"], ["z=2"], None) == {}
    assert dataset_weights(["x=y"], ["x=y=2"]) == {"x=y": 2.0}
