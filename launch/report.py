"""Writes a run's report: one self-contained page, and its figures as files.

merit report --workdir=runs/quickstart
merit report --workdir=runs/quickstart --open

The run may be half finished: a section without data names the command that makes it. Figures need the `figures` extra
(`pip install 'merit-jax[figures]'`); without it the page has the words and tables alone.
"""

import webbrowser
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from etils import epath

from merit_jax.launch.console import app
from merit_jax.launch.console.tables import print_text
from merit_jax.reporting.page import write_report
from merit_jax.workdir.paths import Workdir, absolute, is_remote

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_bool("open", False, "Open the page in the default browser once it is written.")


def main(argv: Sequence[str]) -> None:
    """Writes the report and prints its path."""
    root = absolute(FLAGS.workdir)
    if not root.is_dir():
        raise ValueError(f"--workdir={FLAGS.workdir}: no such directory; give the directory of a run")
    path = write_report(Workdir(root, root), FLAGS.workdir)
    if app.is_first_process():
        print_text(f"Report: {path}")
        if FLAGS.open and (problem := open_page(path)):
            print_text(problem)


def open_page(path: epath.Path) -> str:
    """Opens a page in the default browser; returns a sentence where it cannot be opened, "" where it is."""
    if is_remote(path):
        return f"--open: the page is in a bucket; copy {path} to this machine and open it there"
    try:
        opened = webbrowser.open(Path(path).resolve().as_uri())
    except webbrowser.Error:
        opened = False
    return "" if opened else f"--open: this machine has no browser that can be opened; open {path} where there is one"


if __name__ == "__main__":
    app.start(main, define_flags)
