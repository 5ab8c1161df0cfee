"""The command `merit`: `merit NAME ...` runs the command of launch/ of that name."""

import ast
import difflib
import runpy
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from merit_jax.launch.console.exit_codes import MISTAKE

FOLDER = Path(__file__).parents[1]
"""Folder of the commands."""

COMMANDS = tuple(sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__"))

HELP = ("help", "-h", "-help", "--help")


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command that the words name, in this process; without one, or for --help, lists all."""
    name, *rest = (sys.argv[1:] if words is None else list(words)) or ["--help"]
    if name in HELP:
        print(overview())
    elif name in ("version", "--version"):
        print(f"merit_jax {version('merit-jax')}")
    elif name in COMMANDS:
        sys.argv = [f"merit {name}", *rest]
        runpy.run_module(f"merit_jax.launch.{name}", run_name="__main__")
    else:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        known = f"did you mean merit {near[0]}?" if near else f"known are {', '.join(COMMANDS)}"
        print(f"error: there is no command {name}; {known}", file=sys.stderr)
        sys.exit(MISTAKE)


def overview() -> str:
    """Returns the commands, each with the first sentence of its module's documentation."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {_purpose(FOLDER / f'{name}.py')}" for name in COMMANDS]
    lines = [
        "MERIT: conflict-aware splitting, separate fine-tuning and one merge.",
        "",
        "usage: merit COMMAND --flag=value",
    ]
    return "\n".join([*lines, "", *rows, "", "merit COMMAND --help shows its flags, with an example."])


def _purpose(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
