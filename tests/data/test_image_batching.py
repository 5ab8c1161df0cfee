"""Batches with images: their room is kept, their shapes are few, and they are read only when a batch is made."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit_jax.core.types import Branch, Dataset, DatasetSlice, Example, ImageReader, PackedExample, ReadReport
from merit_jax.data.bucketing import bucketed_batches
from merit_jax.data.loader import training_batches
from merit_jax.data.packing import RowCapacity, fill_row

IMAGE = 999
REPORT = ReadReport((), "", 0, 0, 0, 0)


class Pictures(NamedTuple):
    """What the reader gives for a row: for each image token its place there, and the length of the row."""

    slots: np.ndarray
    length: np.ndarray


class Reader:
    """Finds image tokens, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[PackedExample]] = []

    def count(self, tokens):
        return int((tokens == IMAGE).sum())

    def row(self, placed, row_length, image_tokens):
        self.asked.append(list(placed))
        found = [start + place for start, e in placed for place in np.flatnonzero(e.tokens[:-1] == IMAGE)]
        slots = np.full(image_tokens, -1)
        slots[: len(found)] = found
        return Pictures(slots, np.array(row_length))

    def check(self, image):
        raise AssertionError("no batch needs this")


def example(token, text, images=0):
    """`images` image tokens between a word and the rest of `text` words; `text - 1 + images` places in a row."""
    tokens = np.array([token, *[IMAGE] * images, *[token] * (text - 1)], np.int32)
    references = ({"type": "image", "path": f"{token}.png"},) if images else ()
    return Example(tokens, np.arange(len(tokens)) > images, references)


def plan(examples, reader, **options):
    """The batches of one dataset whose examples these are."""
    datasets = [Dataset("a", examples, (), REPORT)]
    options = {"epochs": 1, "row_length": 40, "batch_size": 1, "seed": 0, **options}
    return training_batches(datasets, Branch((DatasetSlice("a"),), 0), reader=reader, **options)


def rows_of(batches):
    """How many examples each row of the batches has, in any order."""
    return sorted(int(row.max()) for batch in batches for row in batch.segments)


def test_the_tokens_that_a_branch_reads_have_those_of_images_among_them():
    found = plan([example(1, 3, images=20), example(2, 4), example(3, 2, images=1)], Reader())
    assert (int(found.read.sum()), found.tokens) == ((2 + 20) + 3 + (1 + 1), 2 + 3 + 1)


def test_the_fake_is_a_reader():
    assert isinstance(Reader(), ImageReader)


def test_the_reader_is_told_where_in_the_row_each_example_starts():
    reader, examples = Reader(), [example(1, 3, images=2), example(2, 4), example(3, 2, images=1)]
    batch = fill_row(examples, RowCapacity(12, 5, reader))
    assert [start for start, _ in reader.asked[0]] == [0, 4, 7]
    assert batch.tokens.tolist() == [1, IMAGE, IMAGE, 1, 2, 2, 2, 3, IMAGE, 0, 0, 0]
    assert batch.images.slots.tolist() == [1, 2, 8, -1, -1]
    assert batch.images.length == 12


def test_the_last_token_is_a_target_and_no_image_token_of_the_row():
    cut = Example(np.array([1, 2, IMAGE, IMAGE], np.int32), np.arange(4) == 1, ({"type": "image", "path": "x"},))
    (_, batch), *more = bucketed_batches([cut], buckets=(8,), batch_size=1, reader=Reader(), image_buckets=(1, 2))
    assert not more
    assert batch.images.slots.tolist() == [[2]]
    assert plan([cut], Reader(), image_tokens=1).steps == 1


@pytest.mark.parametrize(("image_tokens", "rows"), [(0, [6]), (9, [3, 3]), (8, [2, 2, 2]), (3, [1] * 6)])
def test_a_row_takes_no_more_images_than_it_has_room_for(image_tokens, rows):
    batches = list(plan([example(i, 3, images=3) for i in range(6)], Reader(), image_tokens=image_tokens).iterator())
    assert rows_of(batches) == rows
    assert {batch.images.slots.shape for batch in batches} == {(1, image_tokens or 40)}


def test_text_fills_rows_whose_room_for_images_is_taken():
    examples = [example(1, 3, images=3), example(2, 3, images=3), *(example(i, 9) for i in (3, 4, 5, 6))]
    batches = list(plan(examples, Reader(), image_tokens=3, row_length=21).iterator())
    assert rows_of(batches) == [3, 3]


def test_every_image_is_read_once_an_epoch_at_its_place():
    reader = Reader()
    examples = [example(i, 3 + i % 4, images=i % 3) for i in range(1, 13)]
    seen = []
    for batch in plan(examples, reader, epochs=2, batch_size=2, image_tokens=4, row_length=20).iterator():
        for tokens, slots in zip(batch.tokens, batch.images.slots, strict=True):
            assert slots[slots >= 0].tolist() == np.flatnonzero(tokens == IMAGE).tolist()
            seen += tokens[slots[slots >= 0]].tolist()
    assert seen == [IMAGE] * 2 * sum(i % 3 for i in range(1, 13))


def test_a_branch_of_text_has_no_images_in_its_batches():
    reader = Reader()
    batches = list(plan([example(i, 5) for i in range(6)], reader, packing=False, batch_size=4).iterator())
    assert [batch.images for batch in batches] == [None, None]
    assert not reader.asked


def test_padding_rows_have_the_shapes_of_the_others():
    (batch,) = plan([example(i, 3, images=2) for i in range(3)], Reader(), packing=False, batch_size=5).iterator()
    assert batch.images.slots.shape == (5, 40)
    assert (batch.images.slots[3:] == -1).all()
    assert (batch.images.slots[:3, 0] == 1).all()


def test_a_plan_reads_no_image():
    reader = Reader()
    batches = plan([example(i, 3, images=2) for i in range(40)], reader, packing=False)
    assert not reader.asked
    next(batches.iterator())
    assert reader.asked


def test_an_example_with_more_image_tokens_than_a_row_takes_is_refused():
    examples = [example(1, 3, images=6), example(2, 3, images=7)]
    expected = (
        r"dataset 'a': training example 1 has 7 image tokens, a row takes 6; raise train\.image_tokens, or lower "
        r"max_pixels in the model's preprocessor_config\.json"
    )
    with pytest.raises(ValueError, match=expected):
        plan(examples, Reader(), image_tokens=6)


def test_an_image_that_cannot_be_read_while_training_is_named():
    class Broken(Reader):
        def row(self, placed, row_length, image_tokens):
            raise ValueError("1.png: the file is empty")

    with pytest.raises(ValueError, match=r"1\.png: the file is empty"):
        next(plan([example(1, 3, images=2)], Broken()).iterator())


SIZES = st.lists(st.tuples(st.integers(2, 6), st.integers(0, 9)), max_size=12)


@given(SIZES, st.integers(1, 3))
def test_batches_come_in_the_shapes_of_pairs_of_buckets_alone(sizes, batch_size):
    examples = [example(i + 1, text, images) for i, (text, images) in enumerate(sizes)]
    buckets, image_buckets, seen, shapes = (15, 5, 8), (9, 3), [], []
    for indices, batch in bucketed_batches(
        examples, buckets=buckets, batch_size=batch_size, reader=Reader(), image_buckets=image_buckets
    ):
        room = 0 if batch.images is None else batch.images.slots.shape[1]
        shapes.append((batch.tokens.shape[1], room))
        for row, index in enumerate(indices):
            if index < 0:
                continue
            text, images = sizes[index]
            assert shapes[-1][0] == min(size for size in buckets if size >= text - 1 + images)
            assert room == min(size for size in (0, *image_buckets) if size >= images)
            if room:
                assert batch.images.slots[row, :images].tolist() == list(range(1, 1 + images))
            seen.append(int(index))
    assert shapes == sorted(shapes)
    assert sorted(seen) == list(range(len(sizes)))


def test_without_image_buckets_a_row_has_room_for_as_many_image_tokens_as_tokens():
    examples = [example(1, 3, images=2), example(2, 3)]
    (_, text), (_, images) = bucketed_batches(examples, buckets=(6,), batch_size=2, reader=Reader())
    assert text.images is None
    assert text.tokens[0, 0] == 2
    assert images.images.slots.shape == (2, 6)


def test_buckets_without_a_reader_are_of_text():
    ((_, batch),) = bucketed_batches([example(1, 3, images=2)], buckets=(6,), batch_size=1, image_buckets=(4,))
    assert batch.images is None


def test_more_image_tokens_than_the_largest_bucket_takes_are_refused():
    examples = [example(1, 3), example(2, 3, images=5)]
    expected = r"example 1 has 5 image tokens, the largest bucket takes 4; add a larger bucket or lower max_pixels"
    with pytest.raises(ValueError, match=expected):
        next(bucketed_batches(examples, buckets=(16,), batch_size=1, reader=Reader(), image_buckets=(2, 4)))


def test_the_images_of_a_batch_are_read_when_it_is_asked_for():
    reader = Reader()
    batches = bucketed_batches(
        [example(i, 3, images=2) for i in range(6)], buckets=(8,), batch_size=2, reader=reader, image_buckets=(2,)
    )
    assert not reader.asked
    for count in (2, 4, 6):
        next(batches)
        assert len(reader.asked) == count
