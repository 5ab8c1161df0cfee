"""Compares methods over seeds: trains what they share once, evaluates all, and writes tables with statistics.

merit experiment --config=quickstart --root=runs/comparison --seeds=0,1,2 --partitions=3 \
    --methods=joint,wise,examples4,random4,soup2,conflict4,kmeans4,merit2d,merit2d:merge.method=uniform \
    --controls=joint:train.epochs=0.5

Each seed has a folder under the root, each method one under `seed-<n>/methods/`. Run again, it resumes; with more
methods or seeds it trains only those. `results.json`, `results.md`, `results.tex` and `frontier.png` cover
the finished seeds. With --diagnose=gain, `gains.json` and `gains.png` compare the gain of every merge with the one that theory
predicts.
"""

import re
from collections.abc import Sequence

from absl import flags

from merit_jax.comparison.styles import MARKDOWN
from merit_jax.comparison.tables import tables
from merit_jax.launch.console import app
from merit_jax.launch.console.tables import print_text
from merit_jax.launch.experiments.paper_values import read_paper_values
from merit_jax.launch.experiments.runner import Experiment, parse_methods, repeat_random_splits, run_experiment

FLAGS = flags.FLAGS


def _seeds(texts: Sequence[str]) -> tuple[int, ...]:
    if not texts or not all(re.fullmatch(r"\d+", text) for text in texts) or len(set(texts)) < len(texts):
        raise ValueError(f"--seeds={','.join(texts)}: expected different whole numbers, as in --seeds=0,1,2")
    return tuple(map(int, texts))


def _tables(folder: str) -> str:
    if folder.startswith("seed-") or not re.fullmatch(r"[\w-]*", folder):
        raise ValueError(
            f"--tables={folder}: expected one name of letters, digits, _ and -, which no seed's folder has"
        )
    return folder


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("root", None, "Directory of the experiment.", required=True)
    flags.DEFINE_string(
        "methods", "", "Methods of equal budget, written as in config.baselines; empty: those and the config's own."
    )
    flags.DEFINE_string("controls", "", "Methods with another budget on purpose, such as joint:train.epochs=2.")
    flags.DEFINE_list("seeds", ["0"], "Values of config.seed.")
    flags.DEFINE_integer("partitions", 1, "Partitions of each random split, per seed.", lower_bound=1)
    flags.DEFINE_list(
        "diagnose",
        [],
        "Diagnostics of every method (docs/guides/diagnostics.md); gain also draws a figure of all methods.",
    )
    flags.DEFINE_string("paper", "", "JSON file, method -> the paper's value; shown in a column of the main table.")
    flags.DEFINE_string(
        "tables",
        "",
        "Folder of the results inside the root, for several comparisons of the same branches; empty: the root.",
    )
    flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")


def main(argv: Sequence[str]) -> None:
    """Runs the experiment and prints its tables."""
    config = app.config()
    given = parse_methods(FLAGS.methods) or [*config.baselines, config.method]
    controls = tuple(repeat_random_splits(parse_methods(FLAGS.controls), FLAGS.partitions))
    methods = tuple(repeat_random_splits(given, FLAGS.partitions))
    paper = read_paper_values(FLAGS.paper) if FLAGS.paper else {}
    experiment = Experiment(
        (*methods, *controls), controls, _seeds(FLAGS.seeds), tuple(FLAGS.diagnose), paper, _tables(FLAGS.tables)
    )
    results = run_experiment(config, FLAGS.root, experiment, overwrite=FLAGS.overwrite)
    if app.is_first_process():
        print_text(tables(results, config.frontier.retention, MARKDOWN, paper))


if __name__ == "__main__":
    app.start(main, define_flags)
