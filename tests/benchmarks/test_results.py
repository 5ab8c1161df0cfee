"""Studies are announced, resumed and placed into the pages; what they run is a command of this repository."""

import re
import shlex
from importlib.util import find_spec

import pytest

from benchmarks import results
from benchmarks.results import END, Study

PRINTS = ("python -c \"print('| a |')\"",)


def test_the_time_is_told_before_anything_starts(tmp_path):
    studies = {"short": Study(PRINTS, minutes=5), "long": Study(PRINTS, minutes=60)}
    assert results.announce(studies, tmp_path).splitlines()[0] == "2 of 2 studies to do, about 65 min on two CPU cores:"
    results.run("long", studies["long"], tmp_path)
    said = results.announce(studies, tmp_path)
    assert said.splitlines()[0] == "1 of 2 studies to do, about 5 min on two CPU cores:"
    assert "long: finished" in said


def test_a_table_is_what_the_last_command_prints_or_leaves(tmp_path):
    (tmp_path / "left.txt").write_text("| a |\n\nA caption.\n")
    printed = Study(("python -c \"print('first')\"", "python -c \"print('log\\n| b |\\n|---|')\""), 1)
    assert results.run("printed", printed, tmp_path) == "| b |\n|---|"
    assert results.run("left", Study(("python -c pass",), 1, tmp_path / "left.txt"), tmp_path).endswith("A caption.\n")
    assert (tmp_path / "left.md").read_text() == "| a |\n\nA caption.\n"


def test_a_command_that_fails_is_named_and_leaves_no_table(tmp_path):
    with pytest.raises(RuntimeError, match="study broken stopped at: python -c 'raise SystemExit"):
        results.run("broken", Study(("python -c 'raise SystemExit(3)'",), 1), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", [None, "missing.md", "empty.md"])
def test_a_study_without_a_table_is_not_finished(tmp_path, left):
    (tmp_path / "empty.md").write_text("nothing\n")
    study = Study(("python -c \"print('nothing')\"",), 1, left and tmp_path / left)
    with pytest.raises(RuntimeError, match="study without has no table: python -c"):
        results.run("without", study, tmp_path)
    assert "without: about 1 min" in results.announce({"without": study}, tmp_path)


@pytest.mark.parametrize(
    ("error", "said"), [(RuntimeError("study a stopped"), "study a stopped"), (KeyboardInterrupt, "goes on")]
)
def test_a_stop_is_told_in_a_sentence(monkeypatch, error, said):
    def stop(*_):
        raise error

    monkeypatch.setattr(results, "run", stop)
    with pytest.raises(SystemExit, match=said):
        results.main(["--only", "fidelity"])


def test_tables_are_placed_between_their_markers_alone():
    parts = ["before", "<!-- table: methods -->", "old", END, "between", "<!-- table: fidelity -->", "kept", END, ""]
    page = "\n".join(parts)
    found = results.place(page, {"methods": "| new |\n"})
    assert "| new |" in found
    assert "old" not in found
    assert "kept" in found
    assert (found.startswith("before\n"), "\nbetween\n" in found) == (True, True)
    with pytest.raises(ValueError, match="no study makes the table 'unknown'"):
        results.place("<!-- table: unknown -->\n<!-- end of table -->", {})


def test_every_study_has_a_place_in_the_results_and_runs_a_module_that_is_there():
    pages = "".join(page.read_text() for page in results.PAGES.glob("*.md"))
    marked = {name.removesuffix("_more") for name in re.findall(r"<!-- table: (\w+) -->", pages)}
    assert marked == {*results.STUDIES, *results.ELSEWHERE}
    for study in results.STUDIES.values():
        for command in study.commands:
            words = shlex.split(command)
            assert words[:2] == ["python", "-m"]
            assert find_spec(words[2])
