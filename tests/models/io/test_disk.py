"""A disk that is full or may not be written to: told beforehand where it can be, and always with the path."""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from merit_jax.models import StoredTensors
from merit_jax.models.io import disk
from merit_jax.models.io.disk import check_room, named
from tests.models.io.test_raw_tensors import odd

OPEN = Path.open


def full(name):
    """An `open` for which the disk is full when a file of that name is written."""

    def opened(file, mode="r", *args, **options):
        lost = Path(file).name == name and "w" in mode
        return OPEN(Path("/dev/full") if lost else Path(file), mode, *args, **options)

    return opened


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "name",
    [
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "README.md",
        "config.json",
    ],
)
def test_a_full_disk_is_told_with_the_path_and_nothing_is_left(tmp_path, monkeypatch, name):
    base = StoredTensors(odd(tmp_path / "odd", **{"big": np.ones(9000, np.float32)}))
    monkeypatch.setattr(Path, "open", full(name))
    monkeypatch.setattr(shutil, "open", full(name), raising=False)  # copyfile's
    with pytest.raises(OSError, match="No space left on device") as error:
        base.export(tmp_path / "out", base.read, {"README.md": "own"}, 9000)
    assert error.value.errno == errno.ENOSPC
    assert name in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["odd"]


def test_an_error_that_has_a_path_keeps_it():
    with pytest.raises(FileNotFoundError) as error, named(Path("other")):
        Path("nowhere/x").read_text()
    assert error.value.filename == "nowhere/x"


def test_too_little_room_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * 10**9))
    check_room(tmp_path / "a" / "out", 10**9)
    with pytest.raises(OSError, match=r"needs 3 GB and 2 GB are free; .*'.*out'") as error:
        check_room(tmp_path / "a" / "out", 3 * 10**9)
    assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_a_folder_without_permission_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(PermissionError, match=f"no permission to write here; .*'{tmp_path}'"):
        check_room(tmp_path / "a" / "b" / "out", 1)
