"""Artifacts are whole or absent, remember their inputs, and say what is wrong with them."""

import errno
import hashlib
import io
import os
import resource

import numpy as np
import pytest
from etils import epath

from merit_jax.workdir import artifacts, checksums
from merit_jax.workdir.artifacts import (
    differences,
    is_current,
    read_arrays,
    read_json,
    write_array,
    write_arrays,
    write_json,
)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_array_on_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        with pytest.raises(OSError, match=r"a\.npy"):
            write_array(epath.Path(tmp_path) / "a.npy", np.ones(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_written_value_is_read_back(folder):
    write_json(folder / "a" / "b.json", {"x": [1, "é"]})
    assert read_json(folder / "a" / "b.json") == {"x": [1, "é"]}
    write_arrays(folder / "c.npz", {"seed": 1}, numbers=np.arange(3))
    assert read_arrays(folder / "c.npz")["numbers"].tolist() == [0, 1, 2]
    assert artifacts.read_inputs(folder / "c.npz") == {"seed": 1}


@pytest.mark.parametrize("broken", ["fsync", "save"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(folder, monkeypatch, broken):
    path = folder / "a.npy"
    artifacts.write_array(path, np.arange(3))
    monkeypatch.setattr(*((os, "fsync") if broken == "fsync" else (np, "save")), full_disk)
    with pytest.raises(OSError, match="No space left"):
        artifacts.write_array(path, np.arange(9))
    assert [file.name for file in folder.iterdir()] == ["a.npy"]
    assert np.load(path).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("9 requested and 0 written")]
)
def test_a_failed_write_names_the_file_and_the_reason(folder, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match=r"a\.npy: (No space left|.*0 written.*disk full)"):
        artifacts.write_array(folder / "a.npy", np.arange(3))


def test_a_file_appears_only_when_it_is_complete(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append([file.suffix for file in folder.iterdir()]))
    write_json(folder / "a.json", {})
    assert seen == [[".tmp"]]


def test_an_artifact_is_current_only_for_its_own_inputs(folder):
    path = folder / "a.json"
    assert not is_current(path, {"seed": 1}, overwrite=False)
    write_json(path, {"inputs": {"seed": 1, "share": [1, 2]}})
    assert is_current(path, {"share": (1, 2), "seed": 1}, overwrite=False)
    assert not is_current(path, {"seed": 2}, overwrite=True)


@pytest.mark.parametrize("name", ["a.json", "a.npz"])
def test_the_refusal_names_the_key_with_its_old_and_new_value(folder, name):
    path, old = folder / name, {"train": {"rate": 0.1, "epochs": 1}}
    write_arrays(path, old) if path.suffix == ".npz" else write_json(path, {"inputs": old})
    with pytest.raises(ValueError, match=r"a\.\w+ was made from other inputs: train\.rate: 0\.1 -> 0\.2\. Use another"):
        is_current(path, {"train": {"rate": 0.2, "epochs": 1}}, overwrite=False)


def test_differences_are_capped_and_counted():
    old, new = ({f"k{i}": {"v": i + shift} for i in range(9)} for shift in (0, 1))
    found = differences(old, new, most=3)
    assert found == ["k0.v: 0 -> 1", "k1.v: 1 -> 2", "k2.v: 2 -> 3", "and 6 more"]


def test_nested_differences_are_capped_and_counted_once():
    old, new = ({"outer": {f"k{i}": i + shift for i in range(9)}, "z": shift} for shift in (0, 1))
    assert differences(old, new, most=3)[-1] == "and 7 more"


def test_long_values_are_shortened():
    (line,) = differences({"a": "x" * 500}, {"a": "y"})
    assert len(line) < 100


def test_a_key_that_came_or_went_is_a_difference():
    assert differences({"a": 1}, {"b": None}) == ["a: 1 -> nothing", "b: nothing -> null"]


@pytest.mark.parametrize("read", [read_json, read_arrays])
def test_a_missing_artifact_says_to_run_its_stage(folder, read):
    with pytest.raises(ValueError, match=r"gone\.x is missing; run the stage that writes it first"):
        read(folder / "gone.x")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe"])
def test_a_damaged_json_is_named(folder, content):
    (folder / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON .*; delete it and run its stage again"):
        read_json(folder / "a.json")


def test_a_damaged_archive_is_named(folder):
    buffer = io.BytesIO()
    np.savez(buffer, inputs="{}", a=np.arange(100))
    for content in (b"", b"no zip", buffer.getvalue()[:-200], buffer.getvalue().replace(b"\x07", b"\x09")):
        (folder / "a.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npz is damaged .*; delete it and run its stage again"):
            read_arrays(folder / "a.npz")


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_an_artifact_that_is_no_object_is_named(folder, content):
    (folder / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json"):
        is_current(folder / "a.json", {}, overwrite=False)


def test_an_archive_without_inputs_is_named(folder):
    np.savez(folder / "a.npz", a=np.arange(3))
    with pytest.raises(ValueError, match=r"a\.npz"):
        is_current(folder / "a.npz", {}, overwrite=False)


def test_a_json_that_was_changed_is_refused_and_one_without_a_checksum_is_taken(folder):
    path = folder / "a.json"
    write_json(path, {"inputs": {2: "x"}, "tokens": (1, 2.5)})
    assert read_json(path) == {"inputs": {"2": "x"}, "tokens": [1, 2.5]}
    text = path.read_text()
    path.write_text(text.replace("2.5", "2.6"))
    with pytest.raises(ValueError, match=r"a\.json does not hold what was written .*delete it and run its stage again"):
        read_json(path)
    path.write_text('{"inputs": {}, "tokens": 3}')
    assert read_json(path)["tokens"] == 3


@pytest.mark.parametrize("change", ["flip", "cut", "gone", "new"])
def test_files_that_are_not_as_written_are_named(folder, change):
    (folder / "d" / "e").mkdir(parents=True)
    for name in ("a", "d/b", "d/e/c"):
        (folder / name).write_bytes(name.encode() * 1000)
    sums = checksums.file_checksums(folder)
    assert list(sums) == ["a", "d/b", "d/e/c"]
    checksums.verify_checksums(folder, sums)
    content, path = (folder / "d/e/c").read_bytes(), folder / "d/e/c"
    if change == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif change == "cut":
        path.write_bytes(content[:-1])
    elif change == "gone":
        path.unlink()
    else:
        (folder / "d" / "e" / "f").write_bytes(b"")
    reason = {"gone": "e/c is missing", "new": "e/f was not there"}.get(change, "e/c has changed")
    with pytest.raises(ValueError, match=rf"{folder}/d is damaged \(since it was written, {reason}\); delete it"):
        checksums.verify_checksums(folder, sums)


def test_the_checksum_of_a_vector_is_that_of_its_bytes(monkeypatch):
    monkeypatch.setattr(checksums, "CHUNK", 3)
    vector = np.arange(10, dtype=np.float32)
    assert checksums.sha256_array(vector) == hashlib.sha256(vector.tobytes()).hexdigest()


def test_a_disk_that_takes_no_checkpoint_is_named():
    reason = r"run/checkpoints: the checkpoint cannot be written \(.*No space left.*\); is the disk full"
    with pytest.raises(OSError, match=reason), artifacts.written_checkpoint("run/checkpoints"):
        full_disk()
    with pytest.raises(ValueError, match="not finite"), artifacts.written_checkpoint("run/checkpoints"):
        raise ValueError("branch 1 is not finite")
