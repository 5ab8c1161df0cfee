"""Packing loses nothing, repeats nothing and overfills no row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit_jax.data.packing import pack

SIZES = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 9)), max_size=60)


@given(SIZES, st.integers(1, 5))
def test_every_example_is_in_one_row_and_no_row_is_overfull(sizes, window):
    rows = pack(sizes, (20, 9), window=window)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert all(0 < sum(sizes[index][0] for index in row) <= 20 for row in rows)
    assert all(sum(sizes[index][1] for index in row) <= 9 for row in rows)


@given(SIZES)
def test_with_all_rows_open_it_is_first_fit(sizes):
    room, rows = [], []
    for index, (tokens, images) in enumerate(sizes):
        fits = [row for row, free in enumerate(room) if free[0] >= tokens and free[1] >= images]
        if not fits:
            fits = [len(rows)]
            room.append((20, 9))
            rows.append(())
        room[fits[0]] = (room[fits[0]][0] - tokens, room[fits[0]][1] - images)
        rows[fits[0]] += (index,)
    assert pack(sizes, (20, 9), window=1000) == rows


def test_a_full_window_closes_its_fullest_row():
    assert pack([(6, 0), (9, 0), (8, 0), (4, 0)], (10, 0), window=2) == [(0, 3), (1,), (2,)]


@pytest.mark.parametrize("size", [(0, 0), (11, 0), (5, 4)])
def test_an_example_that_fits_no_row_is_refused(size):
    message = f"example 1 has {size[0]} tokens to predict and {size[1]} image tokens; a row takes 1 to 10 and at most 3"
    with pytest.raises(ValueError, match=message):
        pack([(3, 0), size], (10, 3))
