"""Parts of a dataset: disjoint, together all of it, with counts, images and digests of their own."""

import numpy as np
import pytest

from merit_jax.core.types import Dataset, Example, ReadReport
from merit_jax.data.mixture_part import dataset_part, take_rows
from merit_jax.data.token_cache import as_table


def whole(name="copy", rows=7, images=False):
    """Row i has i + 2 tokens, the first of them i, all but the first supervised."""
    examples = [
        Example(
            np.array([i, *range(100, 101 + i)], np.int32),
            np.arange(i + 2) > 0,
            ({"type": "image", "path": f"{i}.png"},) if images else (),
        )
        for i in range(rows)
    ]
    tokens = sum(len(example.tokens) for example in examples)
    return Dataset(name, examples, ("held out",), ReadReport(("f",), "digest", rows, 1, tokens - rows, tokens))


def rows_of(dataset):
    return [int(example.tokens[0]) for example in dataset.train]


def test_parts_are_disjoint_shuffled_and_together_everything():
    parts = [dataset_part(whole(rows=40), *bounds, seed=3) for bounds in ((0, 9), (9, 10), (10, 40))]
    found = [rows_of(part) for part in parts]
    assert [len(rows) for rows in found] == [9, 1, 30]
    assert sorted(row for rows in found for row in rows) == list(range(40))
    assert found[0] != list(range(9))
    assert all(rows == sorted(rows) for rows in found)


def test_the_report_counts_the_part():
    part = dataset_part(whole(), 2, 5, seed=0)
    rows = rows_of(part)
    assert part.report.rows == len(part.train) == 3
    assert part.report.total_tokens == sum(row + 2 for row in rows)
    assert part.report.tokens == sum(row + 1 for row in rows)
    assert part.held_out == ("held out",)
    for example in part.train:
        np.testing.assert_array_equal(example.tokens[1:], range(100, 101 + int(example.tokens[0])))
        np.testing.assert_array_equal(example.supervised, np.arange(len(example.tokens)) > 0)


@pytest.mark.parametrize(("name", "seed", "bounds"), [("copy", 0, (0, 4)), ("copy", 1, (0, 3)), ("upper", 0, (0, 3))])
def test_the_digest_is_that_of_the_part(name, seed, bounds):
    one, other = dataset_part(whole(), 0, 3, seed=0), dataset_part(whole(name), *bounds, seed=seed)
    assert one.report.digest != other.report.digest
    assert one.report.digest == dataset_part(whole(), 0, 3, seed=0).report.digest


def test_images_go_with_their_rows():
    part = dataset_part(whole(images=True), 1, 6, seed=0)
    assert [example.images[0]["path"] for example in part.train] == [f"{row}.png" for row in rows_of(part)]


def test_rows_in_any_order_and_none():
    table = as_table(whole().train)
    assert [int(e.tokens[0]) for e in take_rows(table, [5, 0, 5])] == [5, 0, 5]
    assert len(take_rows(table, [])) == 0


@pytest.mark.parametrize("bounds", [(2, 2), (3, 2), (0, 8), (-1, 3)])
def test_bounds_that_are_no_part(bounds):
    with pytest.raises(ValueError, match=r"dataset 'copy': examples -?\d to \d of 7 are no part"):
        dataset_part(whole(), *bounds, seed=0)
