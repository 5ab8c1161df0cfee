"""The commands of the pages on clusters, as they stand there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from launch.launchers import LAUNCHERS
from launch.launchers.options import parse
from tests.support import commands

pytestmark = pytest.mark.slow

PAGES = ("branches_anywhere", "clusters", "clusters_tpu", "clusters_slurm", "clusters_ray", "clusters_spot")
SCRIPT = """
import importlib, json, sys
from absl import flags
module = importlib.import_module(sys.argv[1])
module.define_flags()
found = []
for line in json.loads(sys.argv[2]):
    flags.FLAGS.unparse_flags()
    rest = flags.FLAGS([sys.argv[1], *line])
    assert len(rest) == 1, rest
    known = {name: flags.FLAGS[name].value for name in ("launcher", "option") if name in flags.FLAGS}
    for name in known:
        flags.FLAGS[name].unparse()
    found.append(known)
print(json.dumps(found))
"""
"""Parses command lines as a command of launch/ would, and prints the launchers and options in them."""


def lines():
    """(module, words) of each command of launch/ on the pages."""
    for page in PAGES:
        text = (commands.REPOSITORY / "docs" / f"{page}.md").read_text()
        for given in re.findall(r"^    .*?python -m (launch\.\w+) (.*)$", text, re.MULTILINE):
            words = shlex.split(given[1].partition(";")[0].partition("#")[0])
            words = [word.replace("=CONFIG", "=configs/quickstart.py").replace("=k", "=0") for word in words]
            yield given[0], words


COMMANDS = list(lines())


def test_the_pages_have_commands_for_every_launcher():
    given = [word.partition("=") for _, words in COMMANDS for word in words]
    assert {value for name, _, value in given if name in ("--launcher", "--engine")} == set(LAUNCHERS) - {"local"}


def parsed(module, given):
    """The launcher and its options on each command line, as a command of launch/ understands it."""
    words = [sys.executable, "-c", SCRIPT, module, json.dumps(given)]
    env = {**os.environ, **commands.environment()}
    done = subprocess.run(words, cwd=commands.REPOSITORY, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS}))
def test_every_command_line_and_every_option_is_understood(module):
    for known in parsed(module, [words for name, words in COMMANDS if name == module]):
        if "launcher" in known:
            parse(LAUNCHERS[known["launcher"]].options, known["option"], known["launcher"])


def test_the_launcher_may_be_given_by_its_former_flag():
    given = [["--workdir=d", f"--{flag}=slurm", "--option=time=1:00:00"] for flag in ("launcher", "engine")]
    assert parsed("launch.cluster", given) == [{"launcher": "slurm", "option": ["time=1:00:00"]}] * 2


@pytest.mark.parametrize("page", PAGES)
def test_options_that_the_text_names_exist(page):
    text = (commands.REPOSITORY / "docs" / f"{page}.md").read_text()
    known = {field for kind in LAUNCHERS.values() for field in kind.options._fields}
    assert set(re.findall(r"--option=(\w+)=", text)) <= known


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (commands.REPOSITORY / "docs" / f"{page}.md").read_text()
    for link in re.findall(r"\]\(([\w./]+\.md)(?:#[\w-]+)?\)", text):
        assert Path(commands.REPOSITORY / "docs" / link).exists(), link
