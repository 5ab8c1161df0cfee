"""Runs MERIT: all stages or chosen ones, and the baselines of the config beside them.

python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart
python -m launch.run --config=configs/smollm2_bigbench.py:merit2d --workdir=DIR --stages=gradients,conflict,partition
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from configs.common import with_method
from launch import cli, wire
from launch.tables import print_evaluation, print_partition, print_times
from merit_jax.pipeline import STAGES, run_stages, timed
from merit_jax.run import Run
from merit_jax.stages.evaluate import evaluate
from merit_jax.workdir import Workdir, write_text

FLAGS = flags.FLAGS
CONFIG = cli.define_config()
flags.DEFINE_string("workdir", None, "Directory of the run's artifacts.", required=True)
flags.DEFINE_list("stages", [], f"Stages to run, of {', '.join(STAGES)}; empty: all.")
flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")

BASELINE_STAGES = ("mixture", "gradients", "conflict", "partition", "train", "merge")


def run_all(config: ConfigDict, workdir: str, stages: Sequence[str], *, overwrite: bool) -> Run:
    """Runs the stages of a config; with all stages, trains its baselines too and evaluates everything together."""
    run = wire.open_run(config, workdir, overwrite=overwrite)
    if stages:
        run_stages(run, stages)
    else:
        run_stages(run, [name for name in STAGES if name != "evaluate"])
        baselines = train_baselines(run)
        timed(run, "evaluate", lambda: evaluate(run, baselines))
    run.on_first_process(lambda: _keep(run.workdir.config, config.to_json_best_effort(indent=2) + "\n"))
    return run


def _keep(path: epath.Path, text: str) -> None:
    """Writes the text if it is not there already."""
    if not path.exists() or path.read_text() != text:
        write_text(path, text)


def train_baselines(run: Run) -> Mapping[str, Workdir]:
    """Trains and merges each baseline in a workdir of its own under this run's."""
    workdirs = {}
    for method in run.config.baselines:
        config = with_method(copy.deepcopy(run.config).unlock(), method).lock()
        other = run.beside(config, Workdir.at(run.workdir.root / "baselines" / method))
        timed(run, f"baseline {method}", partial(run_stages, other, BASELINE_STAGES))
        workdirs[method] = other.workdir
    return workdirs


def main(argv: Sequence[str]) -> None:
    """Runs, then prints what came out."""
    run = run_all(cli.as_config(CONFIG), FLAGS.workdir, FLAGS.stages, overwrite=FLAGS.overwrite)
    if cli.is_first_process():
        print_partition(run.workdir)
        print_evaluation(run.workdir)
        print_times(run.workdir)


if __name__ == "__main__":
    cli.start(main)
