"""A short fuzz of everything that reads files from elsewhere; `python -m tests.fuzz.campaign` is the long one."""

import time

import pytest

from tests.fuzz import corpus
from tests.fuzz.guard import HangError, guarded
from tests.fuzz.harness import Fuzz
from tests.fuzz.targets import TARGETS

SLOW = dict.fromkeys(("pretrained", "tokenizer", "tokenizer_config", "special_tokens", "image_processor"), 12)
SLOW |= {"gguf_tokenizer": 25}
INPUTS = 120


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_read_or_refused_with_a_sentence(tmp_path, name):
    fuzz = Fuzz(name, tmp_path / "world")
    assert not list(fuzz.many(0, len(fuzz.seeds) + SLOW.get(name, INPUTS)))
    assert fuzz.ends["refused"]


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"template", "containers"}))
def test_the_files_that_are_damaged_are_read_when_whole(tmp_path, name):
    fuzz = Fuzz(name, tmp_path / "world")
    for case in range(len(fuzz.seeds)):
        assert not fuzz.run(case)
    assert fuzz.ends["read"] == len(fuzz.seeds), fuzz.ends


def test_what_is_no_record_a_line_is_refused(tmp_path):
    fuzz = Fuzz("containers", tmp_path / "world")
    assert not list(fuzz.many(0, len(fuzz.seeds)))
    assert fuzz.ends == {"read": 1, "refused": len(corpus.CONTAINERS)}


def test_no_hostile_template_is_rendered(tmp_path):
    fuzz = Fuzz("template", tmp_path / "world")
    first = len(corpus.TEMPLATES)
    for number, text in enumerate(corpus.ATTACKS):
        before = fuzz.ends["refused"]
        assert not fuzz.run(first + number), text
        assert fuzz.ends["refused"] == before + 1, text


def test_the_guard_sees_what_it_is_for(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("x")
    with guarded(tmp_path / "in") as seen:
        (tmp_path / "in" / "mine").write_text("x")
        (tmp_path / "secret").read_text()
        (tmp_path / "new").write_text("x")
    assert [line.partition(": ")[0] for line in seen] == ["read outside", "written outside"]
    with pytest.raises(HangError), guarded(tmp_path / "in", seconds=0.1):
        time.sleep(5)
