"""Packs what a site may send: a gradient for each of its datasets, with names and counts, and no row of its data.

merit pack --config=CONFIG --workdir=DIR --config.mixture.path='here/*.train.jsonl' --site=hospital --out=hospital.npz

Gradients that are not there yet are taken first. `merit join` makes one split of the files of all sites.
"""

from collections.abc import Sequence

from absl import flags
from etils import epath

from merit_jax.launch.console import app
from merit_jax.launch.console.terminal import terminal
from merit_jax.launch.experiments.run_config import run_config
from merit_jax.pipeline.site_file import write_site_file

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of this site's artifacts.", required=True)
    flags.DEFINE_string("site", None, "Name of this site, as the split shall call it.", required=True)
    flags.DEFINE_string("out", None, "File to write, NAME.npz.", required=True)
    flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")


def main(argv: Sequence[str]) -> None:
    """Takes the gradients, and writes the file."""
    run = run_config(app.config(), FLAGS.workdir, ["mixture", "gradients"], overwrite=FLAGS.overwrite)
    path = epath.Path(FLAGS.out)
    count = write_site_file(run, FLAGS.site, path)
    if app.is_first_process():
        size = path.stat().length / 2**20
        terminal().print(f"{path}: gradients, names and counts of {count} datasets, {size:.1f} MiB", markup=False)


if __name__ == "__main__":
    app.start(main, define_flags)
