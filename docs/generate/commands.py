"""Generates the reference of all commands from the modules of launch/, and checks command lines against it."""

import contextlib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

from absl import flags

from merit_jax.launch.console.config_files import with_files
from merit_jax.launch.console.merit import COMMANDS

ROOT = Path(__file__).parents[2]
SHARED = ("distributed", "compilation_cache")
"""Flags that every command has."""

INTRODUCTION = """# Commands

Each command is a module, run as `merit NAME --flag=value`; `--help` prints its flags. A command ends with exit code 0
when it is done, and 65 for a mistake, which it prints as one line. After 74 (the machine failed), 75 (not finished) and 130
(Ctrl-C) the same command resumes it.

A command with `--config` also takes `--config.KEY=VALUE` for every [configuration key](config.md), and a
[method](config.md#methods) after the file's name: `--config=quickstart:random4`.
"""


@contextlib.contextmanager
def defined_flags(name: str, words: Sequence[str] = ()) -> Iterator[dict[str, flags.Flag]]:
    """Defines the flags of a command for as long as the context lasts.

    Args:
        name: One of `COMMANDS`.
        words: The command line to which its `--config` belongs.

    Yields:
        Its own flags by name, in the order in which it defines them.
    """
    module = importlib.import_module(f"merit_jax.launch.{name}")
    before = set(flags.FLAGS)
    with mock.patch.object(sys, "argv", [name, *words]):
        try:
            module.define_flags()
            yield {key: flags.FLAGS[key] for key in flags.FLAGS if key not in before}
        finally:
            for key in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, key)


def parse(name: str, words: Sequence[str]) -> dict[str, object]:
    """Parses a command line as the command would, without running it.

    Args:
        name: One of `COMMANDS`.
        words: What follows `merit NAME`.

    Returns:
        The value of each of its flags.

    Raises:
        ValueError: A word is no flag.
        flags.Error: A flag is unknown, or its value is refused.
    """
    words = list(with_files(words))
    with defined_flags(name, words) as own:
        shared = {key: flags.FLAGS[key].value for key in SHARED}
        try:
            if rest := flags.FLAGS([name, *words])[1:]:
                raise ValueError(f"merit {name}: {rest} are no flags")
            return {key: flag.value for key, flag in own.items()}
        finally:
            for key, value in shared.items():
                flags.FLAGS[key].value = value
            flags.FLAGS.unparse_flags()


def page() -> str:
    """Writes the page: a section for each command with its purpose, examples and flags."""
    sections = [INTRODUCTION, *(_section(name) for name in COMMANDS)]
    importlib.import_module("merit_jax.launch.console.app")
    shared = {name: flags.FLAGS[name] for name in SHARED}
    return "\n".join([*sections, "## Flags of every command\n", *_table(shared)]) + "\n"


def _section(name: str) -> str:
    text = inspect.getdoc(importlib.import_module(f"merit_jax.launch.{name}")) or ""
    with defined_flags(name) as own:
        return "\n".join([f"## merit {name}\n", _with_code_blocks(text), "", *_table(own), ""])


def _with_code_blocks(text: str) -> str:
    """Fences the paragraphs that are command lines."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(f"```\n{part}\n```" if part.startswith("merit ") else _with_links(part) for part in paragraphs)


def _table(found: dict[str, flags.Flag]) -> list[str]:
    rows = [f"| `--{name}` | {_default(flag)} | {_meaning(flag)} |" for name, flag in found.items()]
    return ["| flag | default | meaning |", "|---|---|---|", *rows]


def _default(flag: flags.Flag) -> str:
    required = any(str(validator.message).endswith("value other than None.") for validator in flag.validators)
    if required:
        return "required"
    if flag.default in (None, "", []):
        return ""
    return f"`{flag.default_as_str.strip(chr(39))}`"


def _meaning(flag: flags.Flag) -> str:
    """Writes a flag's help as one cell of a table; what absl adds to the help is said in words."""
    values, _, rest = flag.help.partition(">: ")
    text = f"{rest} One of {values[1:].replace('|', ', ')}." if values[0] == "<" and rest else flag.help
    single = re.sub(r";\s+repeat this option to specify a list of values$", "", text)
    return cell(single if single == text else f"{single} May be given several times.")


def cell(text: str) -> str:
    """Writes plain text, with code between backticks, as one cell of a Markdown table."""
    parts = re.sub(r"\s+", " ", text.replace("|", "\\|")).split("`")
    parts[::2] = [_with_links(part.replace("<", "&lt;").replace("*", "\\*")) for part in parts[::2]]
    return "`".join(parts)


def _with_links(text: str) -> str:
    """Links the pages of the documentation that a text names."""
    return re.sub(r"docs/([\w/]+)\.md", lambda match: f"[{match[1]}](../{match[1]}.md)", text)
