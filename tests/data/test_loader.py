"""Batches: every example once an epoch, the shift inside the example, and a run that resumes where it stopped."""

import json

import grain
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit_jax.core.types import Branch, Dataset, DatasetSlice, Example, ReadReport
from merit_jax.data.bucketing import bucketed_batches, calibration_examples
from merit_jax.data.loader import training_batches
from merit_jax.data.packing import RowCapacity, fill_row
from merit_jax.data.sampler import share_indices
from merit_jax.data.token_cache import as_table

REPORT = ReadReport((), "", 0, 0, 0, 0)


def example(token, length):
    """`length` times the token, the second half supervised."""
    return Example(np.full(length, token, np.int32), np.arange(length) >= max(1, length // 2))


def dataset(name, first, lengths):
    """Examples whose tokens are `first`, `first + 1`, ..., so that a batch tells which ones it holds."""
    table = as_table([example(first + i, length) for i, length in enumerate(lengths)])
    return Dataset(name, table, (), REPORT)


DATASETS = (dataset("a", 1, [3, 5, 9, 2, 4, 6, 7]), dataset("b", 101, [8, 8, 3]), dataset("c", 201, [4] * 5))
BRANCH = Branch((DatasetSlice("a"), DatasetSlice("c")), seed=7)


def batches(branch=BRANCH, datasets=DATASETS, **options):
    return training_batches(datasets, branch, **{"epochs": 1, "row_length": 10, "batch_size": 2, "seed": 0, **options})


def visited(rows):
    """First token of every example in the batches, in order."""
    return [
        int(tokens[segments == segment][0])
        for batch in rows
        for tokens, segments in zip(batch.tokens, batch.segments, strict=True)
        for segment in range(1, segments.max() + 1)
    ]


def test_an_epoch_visits_every_example_of_the_branch_once():
    assert sorted(visited(batches().iterator())) == [*range(1, 8), *range(201, 206)]


def test_every_epoch_visits_every_example_once_in_another_order():
    order = visited(batches(epochs=3, packing=False).iterator())
    epochs = [tuple(order[start : start + 12]) for start in (0, 12, 24)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len(set(epochs)) == 3


def test_half_an_epoch_is_the_first_half_of_its_order():
    whole = visited(batches(packing=False).iterator())
    assert visited(batches(epochs=0.5, packing=False).iterator()) == whole[:6]
    assert visited(batches(epochs=1.5, packing=False).iterator())[:12] == whole


def test_the_order_is_the_branchs_own():
    orders = {tuple(visited(batches(BRANCH._replace(seed=seed), packing=False).iterator())) for seed in (7, 7, 8)}
    assert len(orders) == 2


def test_steps_tokens_and_examples_are_counted_before_the_first_batch():
    plan = batches(epochs=2.5)
    rows = list(plan.iterator())
    assert len(rows) == plan.steps
    assert sum(batch.weights.sum() for batch in rows) == plan.tokens
    assert len(visited(rows)) == plan.examples == 30


def test_the_last_batch_is_filled_up_with_padding():
    plan = batches(packing=False, batch_size=5)
    *_, last = plan.iterator()
    assert plan.steps == 3
    assert last.tokens.shape == (5, 10)
    for leaf in last[:5]:
        assert not leaf[2:].any()


def test_a_run_resumes_from_its_saved_state():
    plan = batches(epochs=4)
    iterator = plan.iterator()
    for _ in range(plan.steps // 2):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    rest = list(iterator)
    resumed = batches(epochs=4).iterator()
    resumed.set_state(state)
    assert isinstance(resumed, grain.DatasetIterator)
    for left, right in zip(rest, resumed, strict=True):
        for x, y in zip(left[:5], right[:5], strict=True):
            np.testing.assert_array_equal(x, y)


def test_adding_a_dataset_changes_no_share_of_another():
    branch = Branch((DatasetSlice("a", 1, 2),), seed=7)
    assert visited(batches(branch).iterator()) == visited(batches(branch, datasets=DATASETS[:1]).iterator())


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 3))
def test_the_parts_of_a_dataset_are_disjoint_equal_and_all_of_it(n, parts, seed):
    slices = [share_indices(n, DatasetSlice("a", part, parts), seed) for part in range(parts)]
    assert sorted(np.concatenate(slices).tolist()) == list(range(n))
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_parts_are_shuffled_by_name_and_seed():
    orders = {
        tuple(share_indices(20, DatasetSlice(name), seed)) for name, seed in (("a", 0), ("b", 0), ("a", 1), ("a", 0))
    }
    assert len(orders) == 3


def test_the_shift_stays_inside_the_example():
    first = Example(np.array([5, 6, 7], np.int32), np.array([False, False, True]))
    second = Example(np.array([8, 9], np.int32), np.array([False, True]))
    batch = fill_row([first, second], RowCapacity(5))
    assert batch.tokens.tolist() == [5, 6, 8, 0, 0]
    assert batch.targets.tolist() == [6, 7, 9, 0, 0]
    assert batch.weights.tolist() == [0, 1, 1, 0, 0]
    assert batch.positions.tolist() == [0, 1, 0, 0, 0]
    assert batch.segments.tolist() == [1, 1, 2, 0, 0]
    assert batch.images is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"row_length": 7}, r"dataset 'a': training example 2 has 9 tokens, a row of 7 takes 2 to 8; lower"),
        ({"branch": Branch((DatasetSlice("z"),), 0)}, r"unknown datasets \['z'\]; the mixture has \['a', 'b', 'c'\]"),
        (
            {"branch": Branch((DatasetSlice("a", 2, 2),), 0)},
            r"share of dataset 'a': 1 from part 2 of 2; expected 0 <= part < part \+ width <= parts",
        ),
        ({"branch": Branch((), 0)}, r"nothing to train on: 1 epochs of 0 examples of \[\]"),
        ({"epochs": 0}, r"nothing to train on: 0 epochs of 12 examples of \['a', 'c'\]"),
        ({"epochs": -1}, r"epochs is -1; expected"),
    ],
)
def test_a_run_that_cannot_be_planned_is_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        batches(**options)


def test_one_token_has_nothing_to_predict():
    with pytest.raises(ValueError, match="dataset 'd': training example 1 has 1 tokens"):
        batches(Branch((DatasetSlice("d"),), 0), datasets=(dataset("d", 1, [2, 1]),))


@given(st.lists(st.integers(2, 17), max_size=20), st.integers(1, 4))
def test_buckets_hold_every_example_once_in_the_smallest_shape_that_fits(lengths, batch_size):
    examples = [example(i + 1, length) for i, length in enumerate(lengths)]
    seen = []
    for indices, batch in bucketed_batches(examples, buckets=(16, 4, 8), batch_size=batch_size):
        size = batch.tokens.shape[1]
        assert batch.tokens.shape == (batch_size, size)
        for index, tokens, targets, weights in zip(indices, *batch[:3], strict=True):
            if index < 0:
                assert not tokens.any()
                continue
            n = lengths[index] - 1
            assert size == min(bucket for bucket in (4, 8, 16) if bucket >= n)
            assert (tokens[:n] == index + 1).all()
            assert (targets[:n] == index + 1).all()
            assert weights.sum() == examples[index].supervised.sum()
        real = [int(index) for index in indices if index >= 0]
        assert indices.tolist() == real + [-1] * (batch_size - len(real))
        seen += real
    assert sorted(seen) == list(range(len(lengths)))


def test_an_example_over_the_largest_bucket_is_refused():
    examples = [example(1, 3), example(2, 10)]
    with pytest.raises(ValueError, match="example 1 has 9 tokens to predict, the largest bucket takes 8; add a larger"):
        list(bucketed_batches(examples, buckets=(4, 8), batch_size=2))


def test_calibration_samples_without_replacement_by_name_and_seed():
    def sample(name="a", n=5, seed=0):
        return [int(example.tokens[0]) for example in calibration_examples(dataset(name, 0, [3] * 20), n, seed)]

    assert len(set(sample())) == 5
    assert sample() == sample()
    assert len({tuple(sample()), tuple(sample("b")), tuple(sample(seed=1))}) == 3
    assert sample(n=30) == list(range(20))


@pytest.mark.parametrize("packing", [True, False])
def test_a_process_reads_its_own_rows_only_and_they_are_those_of_the_whole_batch(monkeypatch, packing):
    read = []
    monkeypatch.setattr(
        "merit_jax.data.packing.fill_row",
        lambda examples, *more: (read.extend(examples), fill_row(examples, *more))[1],
    )
    options = {"batch_size": 4, "packing": packing}
    whole, counts = batches(**options), []
    expected = list(whole.iterator())
    for own in ((0, 1), (2, 3)):
        read.clear()
        part = batches(own=own, **options)
        assert (part.tokens, part.examples) == (whole.tokens, whole.examples)
        assert part.supervised.tolist() == whole.supervised.tolist()
        for batch, all_rows in zip(part.iterator(), expected, strict=True):
            assert all((a[list(own)] == b[list(own)]).all() for a, b in zip(batch[:5], all_rows[:5], strict=True))
            assert not batch.segments[[row for row in range(4) if row not in own]].any()
        counts.append(len(read))
    assert sum(counts) == whole.examples
    assert min(counts) > 0


def test_the_tokens_that_each_batch_reads_are_its_places_without_padding():
    for found in (batches(epochs=2.5), batches(packing=False, batch_size=5)):
        assert found.read.tolist() == [(batch.segments > 0).sum() for batch in found.iterator()]
        assert found.read.dtype == np.int64


def test_the_supervised_tokens_of_each_batch_are_those_of_its_weights():
    found = batches(epochs=2)
    assert found.supervised.tolist() == [batch.weights.sum() for batch in found.iterator()]
