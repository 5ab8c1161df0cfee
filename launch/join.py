"""Joins the files of sites whose data stays where it is: one conflict analysis, and one split, `partition.json`.

merit join --config=CONFIG --workdir=DIR --config.mixture.path= --sites=hospital.npz,clinic.npz,lab.npz

A site then needs its own data and `partition.json` for `merit branch`; merge, export and model card need no data.
"""

from collections.abc import Sequence

from absl import flags
from etils import epath

from merit_jax.core.text import matches
from merit_jax.launch.console import app
from merit_jax.launch.console.tables import print_partition
from merit_jax.launch.console.terminal import terminal
from merit_jax.launch.experiments.run_config import save_config
from merit_jax.launch.wiring import open_run
from merit_jax.pipeline.join_sites import join_sites
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.site_file import read_site_file
from merit_jax.pipeline.site_split import HERE, known_sites
from merit_jax.pipeline.stages import BEFORE, run_stages

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the joined run.", required=True)
    flags.DEFINE_list("sites", None, "Files that merit pack has written, one of each site.", required=True)
    flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")


def main(argv: Sequence[str]) -> None:
    """Joins, splits, and says which branch needs data of several sites."""
    files = [read_site_file(epath.Path(path)) for path in FLAGS.sites]
    run = open_run.open_run(app.config(), FLAGS.workdir, overwrite=FLAGS.overwrite)
    join_sites(run, files)
    run_stages(run, BEFORE)
    save_config(run)
    if app.is_first_process():
        print_partition(run.workdir)
        for sentence in needs(run):
            terminal().print(sentence, markup=False)


def needs(run: Run) -> list[str]:
    """Returns a sentence for each branch: the site that can train it, or what would have to move."""
    known = known_sites(run)
    sites = {name: known.get(name, HERE) for name in run.names}
    public = run.config.partition.core_datasets
    found = []
    for k, branch in enumerate(load_partition(run).branches):
        own = [s.dataset for s in branch.shares if not any(matches(s.dataset, pattern) for pattern in public)]
        where = sorted({sites[name] for name in own}) or ["any site"]
        moved = f"branch {k} needs data of {' and '.join(where)}; with partition.sites=joined no branch needs that of two sites"
        found.append(moved if len(where) > 1 else f"branch {k} is trained at {where[0]}")
    return found


if __name__ == "__main__":
    app.start(main, define_flags)
