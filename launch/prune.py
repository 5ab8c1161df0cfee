"""Removes the attention heads that a model needs least, by importance and entropy (HIES), and writes the smaller model.

merit prune --model=MODEL --mixture='data/*.train.jsonl' --ratio=0.3 --out=DIR
merit prune --model=MODEL --mixture=mixture.json --ratio=0.3 --out=DIR --config.prune.recovery=0.1
merit prune --config=quickstart --workdir=runs/quickstart --ratio=0.5                # a run's merged model

The heads are scored on calibration examples of every dataset of the mixture. Scores, choice and evaluation are kept in the
workdir (OUT.work unless given), so that another ratio costs little. Other settings, as criterion, alpha, unit or rounds:
--config.prune.KEY=VALUE.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from merit_jax.configs.schema.check import check
from merit_jax.launch.console import app
from merit_jax.launch.console.pruning_tables import print_pruning
from merit_jax.launch.console.tables import print_text
from merit_jax.launch.wiring import basin, open_run
from merit_jax.pipeline.pruning.prune import prune
from merit_jax.pipeline.pruning.pruning_run import pruning_run
from merit_jax.pipeline.run import Run
from merit_jax.workdir.paths import absolute
from merit_jax.workdir.pruning_files import PruningFiles

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string(
        "model",
        None,
        "Model to prune: a folder, a .gguf file, or OWNER/NAME of the hub; left out: the merged model of --config and --workdir.",
    )
    flags.DEFINE_string("mixture", None, "With --model: the datasets whose examples score the heads; as mixture.path.")
    flags.DEFINE_float("ratio", None, "Share of the attention heads to remove; left out: prune.ratio of the config.")
    flags.DEFINE_string("out", None, "Folder to make; left out: `pruned/hf` in the workdir of the run.")
    flags.DEFINE_string("workdir", None, "Directory of the run, or with --model of scores and choice.")
    flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")


def main(argv: Sequence[str]) -> None:
    """Prunes, then prints what it cost."""
    config = with_flags(app.given_config())
    run = _of_model(config) if FLAGS.model is not None else _of_run(config)
    prune(run, None if FLAGS.out is None else absolute(FLAGS.out))
    if app.is_first_process():
        print_pruning(run.workdir)
        print_text(f"written to {PruningFiles(run.workdir.root).exported if FLAGS.out is None else FLAGS.out}")


def with_flags(config: ConfigDict) -> ConfigDict:
    """Returns the config with the values of the command's own flags.

    Raises:
        ValueError: A flag is missing, or no heads would be removed.
    """
    if FLAGS.ratio is not None:
        config.prune.ratio = FLAGS.ratio
    if not config.prune.ratio:
        raise ValueError("--ratio is missing: give the share of attention heads to remove, as 0.3")
    if FLAGS.model is not None:
        config.model.path = FLAGS.model
        config.mixture.path = FLAGS.mixture or config.mixture.path
        if not config.mixture.path:
            raise ValueError(
                "--mixture is missing: give the datasets whose examples score the heads, as 'data/*.jsonl'"
            )
        if FLAGS.out is None:
            raise ValueError("--out is missing: give the folder to make")
    elif FLAGS.mixture is not None:
        raise ValueError("--mixture goes with --model; a run's merged model is pruned by the run's own mixture")
    elif FLAGS.workdir is None:
        raise ValueError(
            "--model is missing: give the model to prune, or --config and --workdir of a run that is merged"
        )
    return check(config)


def _of_model(config: ConfigDict) -> Run:
    """Returns the run that prunes the model of --model."""
    return open_run.open_run(config, FLAGS.workdir or f"{FLAGS.out.rstrip('/')}.work", overwrite=FLAGS.overwrite)


def _of_run(config: ConfigDict) -> Run:
    """Returns the run that prunes the merged model of the run of --config and --workdir."""
    config = basin.prepare_theta0(config, FLAGS.workdir)
    return pruning_run(open_run.open_run(config, FLAGS.workdir, overwrite=FLAGS.overwrite))


if __name__ == "__main__":
    app.start(main, define_flags, default_config="common")
