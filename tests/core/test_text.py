"""Control characters in names and paths: found, shown, and never carried out; names are matched as they are."""

import pytest

from merit_jax.core.text import has_control, matches, visible
from merit_jax.workdir.paths import Workdir, absolute

EVIL = ("\n", "\r", "\x1b", "\x00", "\x7f", "\x9b", "\u2028", "\u2029")


@pytest.mark.parametrize("sign", EVIL)
def test_what_commands_a_terminal_or_ends_a_line_is_a_control_character(sign):
    assert has_control(f"a{sign}b")
    assert sign not in visible(f"a{sign}b")


@pytest.mark.parametrize("text", ["a b", "größe", "👨\u200d👩\u200d👧", "日本", "a[1]"])
def test_other_characters_stay(text):
    assert not has_control(text)
    assert visible(text) == text


def test_marks_of_direction_and_halves_of_pairs_are_shown():
    assert visible("gpj.\u202eexe \ud800") == r"gpj.\u202eexe \ud800"
    assert visible("one\ntwo\t", keep="\n") == "one\ntwo\\t"


def test_a_name_with_brackets_is_matched_as_it_is():
    assert matches("task[1]", "task[1]")
    assert not matches("task1", "task[2]")
    assert matches("task1", "task[12]")


@pytest.mark.parametrize("sign", EVIL)
def test_a_path_with_a_control_character_is_refused(tmp_path, sign):
    with pytest.raises(ValueError, match=r"the path '.*\\[nrxu].*' has a control character; rename the folder"):
        Workdir.at(f"{tmp_path}/a{sign}b")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="control character"):
        absolute(f"gs://bucket/a{sign}b")
