"""Writes a run's report: one self-contained page, and its figures as files.

merit report --workdir=runs/quickstart

The run may be half finished: a section without data names the command that makes it. Figures need the `figures` extra
(`pip install 'merit-jax[figures]'`); without it the page has the words and tables alone.
"""

from collections.abc import Sequence

from absl import flags

from merit_jax.launch.console import app
from merit_jax.launch.console.tables import print_text
from merit_jax.reporting.page import write_report
from merit_jax.workdir.paths import Workdir, absolute

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)


def main(argv: Sequence[str]) -> None:
    """Writes the report and prints its path."""
    root = absolute(FLAGS.workdir)
    if not root.is_dir():
        raise ValueError(f"--workdir={FLAGS.workdir}: no such directory; give the directory of a run")
    path = write_report(Workdir(root, root), FLAGS.workdir)
    if app.is_first_process():
        print_text(f"Report: {path}")


if __name__ == "__main__":
    app.start(main, define_flags)
