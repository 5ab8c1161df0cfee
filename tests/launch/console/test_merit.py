"""The command `merit` starts the commands of launch/, and says which there are."""

import sys

import pytest

from docs.generate.commands import SHARED, defined_flags
from merit_jax.launch.console import merit
from merit_jax.launch.console.exit_codes import MISTAKE
from tests.support.commands import environment
from tests.support.zygote import Command

RUN = "from merit_jax.launch.console.merit import main; main()"


@pytest.fixture
def started(monkeypatch):
    """What main starts: a list of a module and its `sys.argv`."""
    found = []
    monkeypatch.setattr(sys, "argv", ["merit"])
    monkeypatch.setattr(merit.runpy, "run_module", lambda name, run_name: found.extend([name, sys.argv, run_name]))
    return found


def test_a_command_gets_the_words_after_its_name(started):
    merit.main(["plan", "--config=quickstart", "--help"])
    assert started == ["merit_jax.launch.plan", ["merit plan", "--config=quickstart", "--help"], "__main__"]


def test_the_words_are_those_of_the_process_where_none_are_given(started, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/merit", "run", "--workdir=w"])
    merit.main()
    assert started[:2] == ["merit_jax.launch.run", ["merit run", "--workdir=w"]]


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"]])
def test_every_command_is_listed_with_its_purpose(words, started, capsys):
    merit.main(words)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(maxsplit=1) for line in lines if line.startswith("  ")]
    assert [name for name, _ in rows] == list(merit.COMMANDS)
    assert all(purpose[0].isupper() for _, purpose in rows)
    assert not started


def test_an_unknown_command_is_a_mistake_that_names_the_nearest_or_all(started, capsys):
    for word, hint in (("reprot", "did you mean merit report?"), ("xyzzy", f"known are {', '.join(merit.COMMANDS)}")):
        with pytest.raises(SystemExit) as ended:
            merit.main([word])
        assert ended.value.code == MISTAKE
        assert capsys.readouterr().err == f"error: there is no command {word}; {hint}\n"
    assert not started


@pytest.mark.parametrize("name", merit.COMMANDS)
def test_the_help_of_a_command_has_all_its_flags_and_an_example(name, tmp_path):
    words = ["merit", name, "--help"]
    command = Command(RUN, words, tmp_path, environment(), imports=f"merit_jax.launch.{name}", apart=True)
    output, error = command.communicate(120)
    assert command.returncode == 0, error
    assert any(line.startswith(f"merit {name} ") for line in output.splitlines())
    with defined_flags(name) as flags:
        shown = [f"--{'[no]' if flag.boolean else ''}{flag.name}:" for flag in flags.values()]
    assert {"--distributed:", "--compilation_cache:"} == {f"--{flag}:" for flag in SHARED}
    assert not [flag for flag in [*shown, *(f"--{flag}:" for flag in SHARED)] if f"  {flag}" not in output]
