"""Packing loses nothing, repeats nothing and overfills no row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit_jax.data.packing import pack


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(1, 5))
def test_every_example_is_in_one_row_and_no_row_is_overfull(lengths, window):
    rows = pack(lengths, 20, window=window)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in row) <= 20 for row in rows)


@given(st.lists(st.integers(1, 20), max_size=60))
def test_with_all_rows_open_it_is_first_fit(lengths):
    room, rows = [], []
    for index, length in enumerate(lengths):
        fits = [row for row, free in enumerate(room) if free >= length]
        if not fits:
            fits = [len(rows)]
            room.append(20)
            rows.append(())
        room[fits[0]] -= length
        rows[fits[0]] += (index,)
    assert pack(lengths, 20, window=1000) == rows


def test_a_full_window_closes_its_fullest_row():
    assert pack([6, 9, 8, 4], 10, window=2) == [(0, 3), (1,), (2,)]


@pytest.mark.parametrize("length", [0, 11])
def test_an_example_that_fits_no_row_is_refused(length):
    with pytest.raises(ValueError, match=f"example 1 has {length} tokens to predict; a row takes 1 to 10"):
        pack([3, length], 10)
