"""`--config` takes the name of a config: of this folder, or of those that are shipped."""

import pytest

from merit_jax.launch.console.config_files import SHIPPED, find, with_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, as the present one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_is_that_of_a_shipped_file(folder):
    assert find("quickstart") == str(SHIPPED / "quickstart.py")
    assert find("quickstart:merit2d") == f"{SHIPPED / 'quickstart.py'}:merit2d"


def test_a_file_of_this_folder_comes_first(folder):
    (folder / "quickstart.py").write_text("")
    assert find("quickstart:merit2d") == "quickstart.py:merit2d"


def test_a_folder_is_no_config(folder):
    (folder / "quickstart.py").mkdir()
    assert find("quickstart") == str(SHIPPED / "quickstart.py")


@pytest.mark.parametrize(
    "name", ["mine.py", "configs/quickstart.py:merit2d", "../quickstart", "/etc/quickstart.py", ""]
)
def test_a_path_is_left_as_it_is(folder, name):
    (folder / "mine.py").write_text("")
    assert find(name) == name


def test_a_method_may_hold_colons_and_paths(folder):
    argument = "merit2d:train.epochs=2,merge.options={'a': 'b/c.py'}"
    assert find(f"quickstart:{argument}") == f"{SHIPPED / 'quickstart.py'}:{argument}"


def test_an_unknown_name_is_told_with_what_is_shipped(folder):
    with pytest.raises(
        ValueError, match=r"--config=quikstart: .* no quikstart\.py, .* shipped are .*quickstart, "
    ) as error:
        find("quikstart")
    assert "common" not in str(error.value)


@pytest.mark.parametrize("flag", ["--config", "-config"])
def test_a_flag_in_one_word_or_two_is_found(folder, flag):
    file = str(SHIPPED / "quickstart.py")
    assert list(with_files([f"{flag}=quickstart:merit2d", "--overwrite"])) == [f"{flag}={file}:merit2d", "--overwrite"]
    assert list(with_files([flag, "quickstart:merit2d", "x"])) == [flag, f"{file}:merit2d", "x"]


def test_other_words_are_left_as_they_are(folder):
    words = ["quickstart", "--config.model.path=quickstart", "--configs=quickstart", "--workdir", "quickstart"]
    assert list(with_files(words)) == words
