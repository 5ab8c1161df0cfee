"""The pages on clusters: a command for every engine, and only options that exist. tests/docs parses their command lines."""

import re

import pytest

from launch.launchers import LAUNCHERS
from tests.support import pages

PAGES = sorted((pages.DOCS / "guides/clusters").glob("*.md"))


def test_the_pages_have_commands_for_every_engine():
    lines = [words for page in PAGES for _, words in pages.commands(page.read_text())]
    engines = {word.partition("=")[2] for words in lines for word in words if word.startswith("--engine=")}
    assert engines == set(LAUNCHERS) - {"local"}


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_options_that_the_text_names_exist(page):
    known = {field for kind in LAUNCHERS.values() for field in kind.options._fields}
    assert set(re.findall(r"--option=(\w+)=", page.read_text())) <= known
