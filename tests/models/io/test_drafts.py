"""A folder appears whole under its name, whatever the name stands for; what killed processes leave is removed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from merit_jax.models.io.drafts import FORSAKEN, check_free, draft_of

WRITER = """
import sys, time
from pathlib import Path
from merit_jax.models.io.drafts import draft_of
with draft_of(Path(sys.argv[1])) as draft:
    (draft / "a").write_text("x")
    print(draft, flush=True)
    time.sleep(60)
"""


def fill(out):
    with draft_of(out) as draft:
        (draft / "config.json").write_text("{}")
        (draft / "model.safetensors").write_text("x")
    return sorted(path.name for path in out.iterdir())


WHOLE = ["config.json", "model.safetensors"]


def test_a_new_and_an_empty_folder(tmp_path):
    assert fill(tmp_path / "new" / "out") == WHOLE
    (tmp_path / "empty").mkdir()
    assert fill(tmp_path / "empty") == WHOLE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new"]
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path):
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/real")
    assert fill(tmp_path / "out") == WHOLE
    assert (tmp_path / "out").is_symlink()
    assert sorted(path.name for path in (tmp_path / "disk" / "real").iterdir()) == WHOLE


def test_a_folder_that_cannot_be_renamed_over_is_filled_inside(tmp_path, monkeypatch):
    out, order = tmp_path / "out", []
    out.mkdir()
    (out / "lost+found").mkdir()
    rmdir, replace = Path.rmdir, os.replace
    monkeypatch.setattr(
        Path, "rmdir", lambda path: (_ for _ in ()).throw(OSError(16, "busy")) if path == out else rmdir(path)
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append(Path(new).name), replace(old, new)))
    assert fill(out) == [*WHOLE[:1], "lost+found", *WHOLE[1:]]
    assert order == ["model.safetensors", "config.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_mount_point(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(out)], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        assert fill(out) == WHOLE
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


@pytest.mark.parametrize("make", [lambda out: out.write_text("x"), lambda out: (out / "a").mkdir(parents=True)])
def test_a_name_in_use_is_refused(tmp_path, make):
    make(tmp_path / "out")
    with pytest.raises(ValueError, match="not an empty folder"):
        check_free(tmp_path / "out")
    with pytest.raises(ValueError, match="not an empty folder"), draft_of(tmp_path / "out"):
        raise AssertionError


def test_a_failure_leaves_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError), draft_of(tmp_path / "out") as draft:
        (draft / "no" / "folder").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_the_draft_of_a_killed_process_is_removed_and_that_of_a_live_one_is_not(tmp_path):
    out = tmp_path / "hf"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            draft = Path(writer.stdout.readline().strip())
            fill(out)
            assert (draft / "a").exists()
            for path in out.iterdir():
                path.unlink()
        finally:
            writer.kill()
    fill(out)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_draft_that_cannot_be_asked_is_removed_when_it_is_old(tmp_path):
    old, young = tmp_path / ".hf.old", tmp_path / ".hf.young"
    for path in (old, young):
        path.mkdir()
    long_ago = time.time() - 2 * FORSAKEN
    os.utime(old, (long_ago, long_ago))
    fill(tmp_path / "hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hf.young", "hf"]
