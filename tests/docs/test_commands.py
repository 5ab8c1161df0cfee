"""Every command line that a page quotes is one that its command takes."""

import re

import pytest
from absl import flags

from docs.generate.commands import COMMANDS, parse
from merit_jax.launch.launchers import LAUNCHERS
from merit_jax.launch.launchers import options as launcher_options
from tests.support import pages

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections

DEFAULTS = {"diagnose": "configs/quickstart.py", "prune": "configs/common.py"}
"""Command -> the config where none is given; of diagnose, one in place of that which the run has saved."""

QUOTED = [
    pytest.param(command, words, id=f"{pages.name(page)}-{command}-{index}")
    for page in pages.PAGES
    for index, (command, words) in enumerate(pages.commands(page.read_text()))
]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(pages.ROOT)


@pytest.mark.parametrize(("command", "words"), QUOTED)
def test_a_quoted_command_line_is_understood(command, words):
    if command in DEFAULTS and not any(word.startswith("--config=") for word in words):
        words = [f"--config={DEFAULTS[command]}", *words]
    if not any("$" in word for word in words):
        found = parse(command, words)
        if command == "cluster":
            launcher_options.parse(LAUNCHERS[found["launcher"]].options, found["option"], found["launcher"])


def test_pages_quote_most_commands():
    assert len(QUOTED) > 60
    assert {param.values[0] for param in QUOTED} == set(COMMANDS)


@pytest.mark.parametrize("words", [["--workdir=x", "--nonsense=1"], ["--workdir=x", "stray"], ["--workdir"], []])
def test_a_wrong_command_line_is_found_wrong(words):
    with pytest.raises((flags.Error, ValueError)):
        parse("report", words)


def test_a_wrong_configuration_key_is_found_wrong():
    with pytest.raises(AttributeError, match="epocs"):
        parse("run", ["--config=configs/quickstart.py", "--workdir=x", "--config.train.epocs=2"])


def test_parsing_leaves_no_flag_behind():
    before = set(flags.FLAGS)
    parse("run", ["--config=configs/quickstart.py", "--workdir=x", "--config.train.epochs=2.0"])
    assert set(flags.FLAGS) == before


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_flags_between_backticks_exist(page):
    from docs.generate.commands import SHARED, defined_flags

    known = set(SHARED)
    for command in COMMANDS:
        with defined_flags(command) as own:
            known |= set(own) | {f"no{name}" for name, flag in own.items() if flag.boolean}
    for path in (pages.ROOT / "benchmarks").glob("study_*.py"):
        known |= set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', path.read_text()))
    of_others = {"help", "requeue", "test-only", "strict", "durations", "gres", "working-dir", "worker"}
    named = set(re.findall(r"`--([a-z_]+)[=`]", page.read_text()))
    assert named <= known | of_others | {"runtime-env-json", "mergekit"}
