"""The pages on clusters: a command for every launcher, and only options that exist. tests/docs parses their command lines."""

import re

import pytest

from docs.generate.commands import parse
from merit_jax.launch.launchers import LAUNCHERS
from tests.support import pages

PAGES = sorted((pages.DOCS / "guides/clusters").glob("*.md"))


def test_the_pages_have_commands_for_every_launcher():
    lines = [words for page in PAGES for _, words in pages.commands(page.read_text())]
    launchers = {word.partition("=")[2] for words in lines for word in words if word.startswith("--launcher=")}
    assert launchers == set(LAUNCHERS) - {"local"}


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_options_that_the_text_names_exist(page):
    known = {field for kind in LAUNCHERS.values() for field in kind.options._fields}
    assert set(re.findall(r"--option=(\w+)=", page.read_text())) <= known


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections
def test_the_launcher_may_be_given_by_its_former_flag():
    given = [
        parse("cluster", ["--workdir=d", f"--{name}=slurm", "--option=time=1:00:00"]) for name in ("launcher", "engine")
    ]
    assert [(found["launcher"], found["option"]) for found in given] == [("slurm", ["time=1:00:00"])] * 2
