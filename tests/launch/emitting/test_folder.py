"""A folder of emitted branches appears whole or not at all, and is never put over what others have written."""

import pytest

from merit_jax.launch.emitting import EMITTERS
from merit_jax.launch.emitting.emit import places
from merit_jax.launch.emitting.folder import RECORD, whole_folder


def write(out, overwrite=False, **files):
    """Writes a folder of these files: `name="text"`."""
    with whole_folder(out, {"tool": "trl"}, overwrite=overwrite) as made:
        (made / "branch-0").mkdir()
        for name, text in files.items():
            (made / "branch-0" / name).write_text(text)


def content(out):
    return {path.name: path.read_text() for path in (out / "branch-0").iterdir()}


def test_a_folder_is_made_and_the_same_again_changes_nothing(tmp_path):
    write(tmp_path / "out", a="1")
    before = (tmp_path / "out" / RECORD).stat().st_mtime_ns
    (tmp_path / "out" / "branch-0" / "model-0").write_text("trained")
    write(tmp_path / "out", a="1")
    assert content(tmp_path / "out") == {"a": "1", "model-0": "trained"}
    assert (tmp_path / "out" / RECORD).stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", a="1")
    assert content(tmp_path / "out") == {"a": "1"}


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write(tmp_path / "out", a="1", b=2)
    assert not list(tmp_path.iterdir())


def test_other_files_are_replaced_only_when_asked(tmp_path):
    out = tmp_path / "out"
    write(out, a="1", b="1")
    with pytest.raises(ValueError, match=r"branch-0/b is not as it would be written now.*--overwrite"):
        write(out, a="1", b="2")
    with pytest.raises(ValueError, match=r"branch-0/b is not as it would be written now"):
        write(out, a="1")
    assert content(out) == {"a": "1", "b": "1"}
    write(out, a="1", c="2", overwrite=True)
    assert content(out) == {"a": "1", "c": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_that_was_changed_by_hand_is_named(tmp_path):
    write(tmp_path / "out", a="1")
    (tmp_path / "out" / "branch-0" / "a").write_text("mine")
    with pytest.raises(ValueError, match=r"branch-0/a is not as it would be written now: .* or the file by hand"):
        write(tmp_path / "out", a="1")


def test_what_others_have_written_is_never_removed(tmp_path):
    out = tmp_path / "out"
    write(out, a="1")
    (out / "branch-0" / "model-0").write_text("trained")
    with pytest.raises(ValueError, match=r"branch-0/model-0 was not written by merit partition"):
        write(out, a="2", overwrite=True)
    assert content(out) == {"a": "1", "model-0": "trained"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(ValueError, match=r"mine is not empty, and merit partition has not written it"):
        write(tmp_path / "mine", a="1", overwrite=True)
    with pytest.raises(ValueError, match="file is a file"):
        write(tmp_path / "mine" / "file", a="1")


def test_each_tool_has_a_folder(tmp_path):
    found = places(["trl", "axolotl"], str(tmp_path), None)
    assert found == {tool: tmp_path / "emitted" / tool for tool in ("trl", "axolotl")}
    assert places(["trl"], str(tmp_path), str(tmp_path / "mine")) == {"trl": tmp_path / "mine"}
    assert not places([], str(tmp_path), None)


@pytest.mark.parametrize(
    ("tools", "out", "said"),
    [
        (["trll"], None, f"unknown --emit 'trll'; known: {', '.join(sorted(EMITTERS))}"),
        (["trl", "trl"], None, "names a tool twice"),
        (["trl", "axolotl"], "x", "--out=x is the folder of one tool's files, and --emit names 2"),
        ([], "x", "--emit names 0"),
    ],
)
def test_a_wrong_list_of_tools_is_refused(tmp_path, tools, out, said):
    with pytest.raises(ValueError, match=said):
        places(tools, str(tmp_path), out)


def test_a_bucket_is_refused():
    with pytest.raises(ValueError, match="other tools read local files; give a local folder with --out"):
        places(["trl"], "gs://bucket/run", None)
