"""Folded seeds are fixed numbers that depend on every part."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from merit_jax.core.seeds import fold


def test_a_seed_is_the_same_number_on_every_machine():
    parts = b"".join(len(part).to_bytes(8, "big") + part for part in (b"7", b"order", b"3"))
    assert fold(7, "order", "3") == int(hashlib.sha256(parts).hexdigest()[:8], 16) // 2


@given(st.integers(), st.lists(st.text(max_size=3), max_size=3))
def test_a_seed_fits_31_bits(seed, names):
    assert 0 <= fold(seed, *names) < 2**31


def test_every_part_and_its_place_change_the_seed():
    seeds = {fold(0), fold(1), fold(0, "a"), fold(0, "b"), fold(0, "ab", "c"), fold(0, "a", "bc"), fold(0, "c", "ab")}
    assert len(seeds) == 7
