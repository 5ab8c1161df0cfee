"""Temporary files of killed processes go at the next start; those of live ones stay."""

import os
import subprocess
import sys
import time

from etils import epath

from merit_jax.workdir import artifacts
from merit_jax.workdir.artifacts import write_json
from merit_jax.workdir.leftovers import FORSAKEN, UNLOCKED, sweep, temporary_name
from merit_jax.workdir.paths import Workdir

WRITER = """
import sys, time
from etils import epath
from merit_jax.workdir import artifacts

def fill(file):
    file.write(b"x")
    file.flush()
    print("writes", flush=True)
    time.sleep(60)

artifacts._write(epath.Path(sys.argv[1]), fill)
"""


def hidden(folder):
    return sorted(path.name for path in folder.rglob(".*"))


def age(folder, seconds):
    """Makes the temporary files of a folder so much older."""
    for path in folder.rglob(".*"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_the_file_of_a_killed_process_goes_and_that_of_a_live_one_stays(tmp_path):
    workdir = Workdir.at(tmp_path)
    path = workdir.branch(0) / "done.json"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "writes\n"
            age(tmp_path, 2 * UNLOCKED)
            sweep(workdir)
            assert len(hidden(tmp_path)) == 1
        finally:
            writer.kill()
    sweep(workdir)
    assert not hidden(tmp_path)


def test_a_file_is_safe_from_sweeps_until_it_has_its_name(tmp_path, monkeypatch):
    workdir, path = Workdir.at(tmp_path), epath.Path(tmp_path / "a.json")
    swept = []

    def another_process_starts(of):
        age(tmp_path, 2 * UNLOCKED)
        sweep(workdir)
        swept.append(of)

    monkeypatch.setattr(artifacts, "pass_fence", another_process_starts)
    write_json(path, {"kept": 1})
    assert swept == [path]
    assert path.exists()


def test_a_file_that_is_about_to_be_locked_stays(tmp_path):
    temporary_name(epath.Path(tmp_path / "a.json")).write_text("x")
    sweep(Workdir.at(tmp_path))
    assert len(hidden(tmp_path)) == 1
    age(tmp_path, 2 * UNLOCKED)
    sweep(Workdir.at(tmp_path))
    assert not hidden(tmp_path)


def test_what_cannot_be_asked_goes_when_it_is_old(tmp_path):
    for name in (".a.json.00000000deadbeef.tmp", ".a.json.deadbeef.tmp", ".hidden", ".a.json.tmp"):
        (tmp_path / name).write_text("x")
    (tmp_path / "branches" / ".1.deadbeef.tmp").mkdir(parents=True)
    sweep(Workdir.at(tmp_path))
    assert len(hidden(tmp_path)) == 5
    age(tmp_path, 2 * FORSAKEN)
    sweep(Workdir.at(tmp_path))
    assert hidden(tmp_path) == [".a.json.tmp", ".hidden"]


def test_a_written_artifact_leaves_nothing_and_a_name_is_never_used_twice(tmp_path):
    path = epath.Path(tmp_path / "a.json")
    write_json(path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert temporary_name(path) != temporary_name(path)
