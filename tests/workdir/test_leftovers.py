"""Temporary files of killed processes go at the next start; those of live ones stay."""

import os
import subprocess
import sys
import time

from etils import epath

from merit_jax.workdir.artifacts import write_json
from merit_jax.workdir.leftovers import FORSAKEN, sweep, temporary_name
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


def test_the_file_of_a_killed_process_goes_and_that_of_a_live_one_stays(tmp_path):
    workdir = Workdir.at(tmp_path)
    path = workdir.branch(0) / "done.json"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "writes\n"
            sweep(workdir)
            assert len(hidden(tmp_path)) == 1
        finally:
            writer.kill()
    sweep(workdir)
    assert not hidden(tmp_path)


def test_what_cannot_be_asked_goes_when_it_is_old(tmp_path):
    long_ago = time.time() - 2 * FORSAKEN
    for name in (".a.json.00000000deadbeef.tmp", ".a.json.deadbeef.tmp", ".hidden", ".a.json.tmp"):
        (tmp_path / name).write_text("x")
    (tmp_path / "branches" / ".1.deadbeef.tmp").mkdir(parents=True)
    sweep(Workdir.at(tmp_path))
    assert len(hidden(tmp_path)) == 5
    for path in tmp_path.rglob(".*"):
        os.utime(path, (long_ago, long_ago))
    sweep(Workdir.at(tmp_path))
    assert hidden(tmp_path) == [".a.json.tmp", ".hidden"]


def test_a_written_artifact_leaves_nothing_and_a_name_is_never_used_twice(tmp_path):
    path = epath.Path(tmp_path / "a.json")
    write_json(path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert temporary_name(path) != temporary_name(path)
