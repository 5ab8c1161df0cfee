"""Runs MERIT: all stages or chosen ones, and the baselines of the config beside them.

python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart
python -m launch.run --config=configs/smollm2_bigbench.py:merit2d --workdir=DIR --stages=gradients,conflict,partition
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from configs.common import variant
from launch import basin, cli, wire
from launch.figures import draw_frontier
from launch.tables import print_evaluation, print_frontier, print_partition, print_times
from merit_jax.pipeline import STAGES, run_stages, timed
from merit_jax.run import Run
from merit_jax.stages.evaluate import evaluate
from merit_jax.stages.frontier import frontier
from merit_jax.workdir import Workdir, write_text

FLAGS = flags.FLAGS
CONFIG = cli.define_config()
flags.DEFINE_string("workdir", None, "Directory of the run's artifacts.", required=True)
flags.DEFINE_list("stages", [], f"Stages to run, of {', '.join(STAGES)}; empty: all.")
flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")

BASELINE_STAGES = ("mixture", "gradients", "conflict", "partition", "train", "merge")


def run_all(config: ConfigDict, workdir: str, stages: Sequence[str], *, overwrite: bool) -> Run:
    """Runs the stages of a config; with all stages, trains its baselines too and evaluates everything together."""
    config = basin.settle(config, workdir, overwrite=overwrite)
    run = wire.open_run(config, workdir, overwrite=overwrite)
    baseline_configs(run)
    if stages:
        run_stages(run, stages)
    else:
        run_stages(run, [name for name in STAGES if name != "evaluate"])
        baselines = train_baselines(run)
        timed(run, "evaluate", lambda: evaluate(run, baselines))
        timed(run, "frontier", lambda: frontier(run, baselines))
    run.on_first_process(lambda: _keep(run.workdir.config, config.to_json_best_effort(indent=2) + "\n"))
    return run


def _keep(path: epath.Path, text: str) -> None:
    """Writes the text if it is not there already."""
    if not path.exists() or path.read_text() != text:
        write_text(path, text)


def baseline_configs(run: Run) -> dict[str, ConfigDict]:
    """The configuration of every baseline, in order.

    Raises:
        ValueError: A baseline is unknown, or the WiSE control comes without a joint run that it interpolates to.
    """
    found = {spec: variant(run.config, spec) for spec in run.config.baselines}
    for spec, config in found.items():
        if config.merge.method == "interpolate" and not config.merge.branches:
            joint = next((other for other in found if other.startswith("joint")), None)
            if joint is None:
                raise ValueError(
                    f"baseline {spec!r} moves theta0 towards joint training; list 'joint' among the baselines"
                )
            with config.unlocked():
                config.train.update(found[joint].train)  # whose branch it reads
                config.merge.branches = str(_baseline_root(run, joint))
                config.merge.match = str(run.workdir.root)
    return found


def train_baselines(run: Run) -> Mapping[str, Workdir]:
    """Trains and merges each baseline in a workdir of its own under this run's."""
    workdirs = {}
    configs = baseline_configs(run)
    for spec, config in sorted(configs.items(), key=lambda item: bool(item[1].merge.branches)):
        other = run.beside(config, Workdir.at(_baseline_root(run, spec), shared=run.workdir.shared))
        stages = ("merge",) if config.merge.branches else BASELINE_STAGES
        timed(run, f"baseline {spec}", partial(run_stages, other, stages))
        workdirs[spec] = other.workdir
    return {spec: workdirs[spec] for spec in configs}


def _baseline_root(run: Run, spec: str) -> epath.Path:
    return run.workdir.root / "baselines" / re.sub(r"[^\w.=-]", ",", spec)


def main(argv: Sequence[str]) -> None:
    """Runs, then prints what came out."""
    run = run_all(cli.as_config(CONFIG), FLAGS.workdir, FLAGS.stages, overwrite=FLAGS.overwrite)
    if cli.is_first_process():
        print_partition(run.workdir)
        print_evaluation(run.workdir)
        print_frontier(run.workdir)
        draw_frontier(run.workdir)
        print_times(run.workdir)


if __name__ == "__main__":
    cli.start(main)
