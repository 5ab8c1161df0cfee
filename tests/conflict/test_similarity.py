"""Cosines from rows that are read once and in blocks, against numpy in float64."""

import numpy as np
import pytest
from etils import epath

from merit_jax import conflict
from merit_jax.conflict import blocked_products
from merit_jax.gradients.store import StoredRow
from tests.support.scaled_gradients import Recorded, exact, uneven


@pytest.mark.parametrize("seed", range(8))
def test_scales_that_change_between_rows_and_blocks_do_not_matter(monkeypatch, seed):
    monkeypatch.setattr(blocked_products, "BLOCK", 64)
    G = uneven(seed)
    found = conflict.cosines(G)
    np.testing.assert_allclose(found.values, exact(G), atol=1e-6)
    np.testing.assert_allclose(found.norms, np.linalg.norm(G.astype(np.float64), axis=1), rtol=1e-6)


def test_float32_products_of_a_long_row_are_good_to_1e_6():
    rng = np.random.default_rng(0)
    common = rng.standard_normal(2**20)
    G = (common + np.array([[1e-3], [0.1], [1.0], [10.0]]) * rng.standard_normal((4, 2**20))).astype(np.float32)
    np.testing.assert_allclose(conflict.cosines(G).values, exact(G), atol=1e-6)


def test_every_coordinate_is_read_once_and_a_block_at_a_time(monkeypatch):
    monkeypatch.setattr(blocked_products, "BLOCK", 64)
    G = uneven(3)
    recorded = [Recorded(row) for row in G]
    norms = np.linalg.norm(G.astype(np.float64), axis=1)
    np.testing.assert_array_equal(conflict.cosines(recorded, norms=norms).values, conflict.cosines(G).values)
    for row in recorded:
        assert sorted(i for asked in row.asked for i in asked) == list(range(103))
        assert len(G) * max(map(len, row.asked)) <= 64


def test_an_extension_reads_each_row_once_and_leaves_old_pairs_alone(monkeypatch):
    monkeypatch.setattr(blocked_products, "BLOCK", 64)
    G = uneven(4)
    recorded = [Recorded(row) for row in G]
    found = conflict.cosines(recorded, norms=np.linalg.norm(G.astype(np.float64), axis=1), first=3)
    assert found.values.shape == (2, 5)
    whole = conflict.extended(conflict.cosines(G[:3]).values, found)
    np.testing.assert_allclose(whole, conflict.cosines(G).values, atol=1e-6)
    assert all(sum(map(len, row.asked)) == 103 for row in recorded)


def test_rows_without_direction_are_named_wherever_they_show_it(monkeypatch):
    monkeypatch.setattr(blocked_products, "BLOCK", 16)
    G = uneven(5, d=20)
    G[1], G[2, 19], G[4, 7] = 0, np.inf, np.nan
    for compare in (conflict.cosines, conflict.unit_rows):
        with pytest.raises(
            ValueError, match=r"row 1 \(b\) is zero, row 2 \(c\) is not finite, row 4 \(e\) is not finite"
        ):
            compare(G, list("abcde"))


def test_norms_are_measured_whatever_norms_are_given():
    G = uneven(6)
    exact_norms = np.linalg.norm(G.astype(np.float64), axis=1)
    found = conflict.cosines(G, norms=exact_norms * [1, 2, 0.5, 30, 1e-3])
    np.testing.assert_allclose(found.values, exact(G), atol=1e-6)
    np.testing.assert_allclose(found.norms, exact_norms, rtol=1e-6)


def test_a_norm_that_belongs_to_another_row_is_named():
    G = np.array([[1, 2], [1e30, 3], [4, 1]], np.float32)
    with pytest.raises(ValueError, match=r"row 1 \(b\) has norm 1e\+30, not 1e-20; compute the gradients again"):
        conflict.cosines(G, list("abc"), norms=[5**0.5, 1e-20, 17**0.5])
    G[1] = np.nan
    with pytest.raises(ValueError, match=r"row 1 is not finite"):
        conflict.cosines(G, norms=[5**0.5, 1.0, 17**0.5])


def test_denormal_rows_keep_their_direction():
    G = np.array([[3e-43, 4e-43], [0, 1e38]], np.float32)
    np.testing.assert_allclose(conflict.cosines(G).values, exact(G), atol=1e-6)


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"one length, got 2 of the lengths \[3, 4\]"):
        conflict.cosines([np.ones(3, np.float32), np.ones(4, np.float32)])


def test_unit_rows_have_length_one_at_any_scale():
    G = uneven(6)
    found = conflict.unit_rows(G)
    np.testing.assert_allclose(found.values.astype(np.float64) @ found.values.T, exact(G), atol=1e-6)
    np.testing.assert_allclose(found.norms, np.linalg.norm(G.astype(np.float64), axis=1), rtol=1e-6)


def test_a_stored_row_is_the_array_that_was_saved(tmp_path):
    G = uneven(7)
    for i, row in enumerate(G):
        np.save(tmp_path / f"{i}.npy", row)
    stored = [StoredRow(epath.Path(tmp_path / f"{i}.npy")) for i in range(len(G))]
    np.testing.assert_array_equal(stored[2][5:17], G[2, 5:17])
    np.testing.assert_array_equal(conflict.cosines(stored).values, conflict.cosines(G).values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones(3), "expected a vector of float32, got float64"),
        (np.ones((2, 3), np.float32), r"of shape \(2, 3\)"),
        (b"\x93NUMPY\x01\x00", "EOF"),
        (b"no array", "magic string"),
    ],
)
def test_another_file_is_no_row(tmp_path, content, message):
    path = epath.Path(tmp_path / "row.npy")
    path.write_bytes(content) if isinstance(content, bytes) else np.save(tmp_path / "row.npy", content)
    with pytest.raises(ValueError, match=message):
        StoredRow(path)


def test_a_row_that_is_cut_off_is_refused_before_and_while_it_is_read(tmp_path):
    np.save(tmp_path / "row.npy", np.ones(8, np.float32))
    whole = StoredRow(epath.Path(tmp_path / "row.npy"))
    content = (tmp_path / "row.npy").read_bytes()
    (tmp_path / "row.npy").write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"expected \d+ bytes, got \d+"):
        StoredRow(epath.Path(tmp_path / "row.npy"))
    with pytest.raises(ValueError, match=r"row\.npy ended while it was read"):
        whole[:]
