"""Arrays are read as they were written, and a mapped one holds no descriptor."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from merit_jax.workdir.array_files import SMALL, read_array

LARGE = np.arange(SMALL, dtype=np.int32)


def maps(path):
    return Path("/proc/self/maps").read_text().count(str(path))


@pytest.mark.parametrize(
    "array",
    [LARGE, LARGE > 5, np.asfortranarray(LARGE.reshape(256, -1)), np.array(7), np.zeros(0, bool), LARGE[:3]],
)
def test_an_array_is_read_back(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    found = read_array(epath.Path(tmp_path / "a.npy"))
    np.testing.assert_array_equal(found, array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)


def test_many_mapped_arrays_hold_no_descriptor_and_are_unmapped_with_their_last_view(tmp_path):
    path = epath.Path(tmp_path / "a.npy")
    np.save(path, LARGE)
    before = len(os.listdir("/proc/self/fd"))
    views = [read_array(path)[5:9] for _ in range(300)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert maps(path) == 300
    assert all(view.tolist() == [5, 6, 7, 8] for view in views)
    with pytest.raises(ValueError, match="read-only"):
        views[0][0] = 1
    del views
    gc.collect()
    assert not maps(path)


@pytest.mark.parametrize("array", [LARGE, LARGE[:3]])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"x" + data[1:]])
def test_a_file_that_holds_more_or_less_than_its_array_is_refused(tmp_path, array, change):
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "a.npy").write_bytes(change((tmp_path / "a.npy").read_bytes()))
    with pytest.raises((ValueError, EOFError)):
        read_array(epath.Path(tmp_path / "a.npy"))
