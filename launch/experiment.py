"""Compares methods over seeds: trains what each needs once, evaluates all, and writes tables with statistics.

python -m launch.experiment --config=configs/quickstart.py --root=runs/comparison --seeds=0,1,2 --partitions=3 \
    --methods=joint,wise,examples4,random4,soup2,conflict4,kmeans4,merit2d,merit2d:merge.method=uniform \
    --controls=joint:train.epochs=0.5

Each seed has a folder under the root, each method one under `seed-<n>/methods/`. Started again it carries on where it was
stopped; with more methods or seeds it trains only those. `results.json`, `results.md`, `results.tex` and `frontier.png` cover
the seeds that are finished.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from configs.common import parse
from launch import basin, cli, wire
from launch.budgets import budget, check_budgets
from launch.figures import draw_mean_frontier
from launch.methods import BASE, Comparison, compare, make, spell
from launch.outcomes import outcomes
from launch.tables import print_text
from merit_jax.pipeline import timed
from merit_jax.report.results import Plan, Result, summarise, to_json
from merit_jax.report.tables import LATEX, MARKDOWN, tables
from merit_jax.run import Run
from merit_jax.stages.evaluate import evaluate
from merit_jax.stages.frontier import frontier
from merit_jax.workdir import Workdir, absolute, write_json, write_text

FLAGS = flags.FLAGS
CONFIG = cli.define_config()
flags.DEFINE_string("root", None, "Directory of the experiment.", required=True)
flags.DEFINE_string(
    "methods", "", "Methods with one budget, as in config.baselines; empty: those and the config's own."
)
flags.DEFINE_string("controls", "", "Methods that are meant to have another budget, such as joint:train.epochs=2.")
flags.DEFINE_list("seeds", ["0"], "Values of config.seed.")
flags.DEFINE_integer("partitions", 1, "Partitions of each random split, per seed.", lower_bound=1)
flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")


class Experiment(NamedTuple):
    """What is compared.

    Attributes:
        methods: As they were asked for, random ones once per partition; those of one budget, then the controls.
        controls: Those with another budget.
        seeds: Values of `config.seed`.
    """

    methods: tuple[str, ...]
    controls: tuple[str, ...]
    seeds: tuple[int, ...]


def run_experiment(
    config: ConfigDict, root: epath.PathLike, experiment: Experiment, *, overwrite: bool
) -> dict[str, Result]:
    """Runs all methods for one seed after the other, and writes the results so far after each.

    Raises:
        ValueError: A method is unknown or lacks what it needs, or budgets differ: before anything is done.
    """
    root = absolute(root)
    planned = compare(config, experiment.methods, root)
    check_budgets({name: task.config for name, task in planned.merged.items()}, experiment.controls)
    config = basin.settle(config, root, overwrite=overwrite)
    run, found, results = None, [], {}
    for seed in experiment.seeds:
        folder, seeded = root / f"seed-{seed}", _seeded(config, seed)
        run = run.beside(seeded, Workdir.at(folder)) if run else wire.open_run(seeded, folder, overwrite=overwrite)
        comparison = compare(seeded, experiment.methods, folder / "methods")
        workdirs = make(run, comparison)
        timed(run, "evaluate", lambda run=run, workdirs=workdirs: evaluate(run, workdirs))
        timed(run, "frontier", lambda run=run, workdirs=workdirs: frontier(run, workdirs))
        found += [(label(outcome.variant), outcome) for outcome in outcomes(run, comparison)]
        results = summarise(plans(comparison, experiment.controls), found)
        _write(run, root, results, experiment)
    return results


def plans(comparison: Comparison, controls: Sequence[str]) -> dict[str, Plan]:
    """What is known of every method and of theta0, by label."""
    found = {BASE: Plan(branches=0, passes=0.0, control=False, random=None)}
    for spec, (config, _) in comparison.merged.items():
        trained = comparison.trained[comparison.trainer[spec]].config if spec in comparison.trainer else config
        branches = trained.partition.groups
        random = f"random{branches}" if f"random{branches}" in comparison.merged else None
        name = label(spec)
        found[name] = Plan(branches, budget(trained), spec in controls, random if random != name else None)
    return found


def label(spec: str) -> str:
    """The method of a run: partitions of one random split are one method."""
    method, overrides = parse(spec)
    return spell(method, {key: text for key, text in overrides.items() if key != "partition.seed"})


def listed(text: str) -> list[str]:
    """The methods of a flag; a comma may also stand between a method's overrides, or inside one."""
    found: list[str] = []
    for part in filter(None, re.split(r",(?=[a-z])", text)):
        if found and re.match(r"\w+\.\w+=", part):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def expanded(methods: Sequence[str], partitions: int) -> Iterator[str]:
    """The methods, random splits once per partition; theta0 is always there and left out."""
    for spec in methods:
        method, overrides = parse(spec)
        if spec != BASE:
            yield spec
        if method.startswith("random") and "partition.seed" not in overrides:
            for seed in range(1, partitions):
                yield spell(method, {"partition.seed": str(seed), **overrides})


def _seeded(config: ConfigDict, seed: int) -> ConfigDict:
    seeded = copy.deepcopy(config)
    seeded.seed = seed
    return seeded


def _write(run: Run, root: epath.Path, results: dict[str, Result], experiment: Experiment) -> None:
    retention = run.config.frontier.retention
    about = {"config": run.config.method, "seeds": list(experiment.seeds), "retention": retention}

    def write() -> None:
        write_text(root / "config.json", run.config.to_json_best_effort(indent=2) + "\n")
        write_json(root / "results.json", to_json(results, about))
        write_text(root / "results.md", tables(results, retention, MARKDOWN) + "\n")
        write_text(root / "results.tex", tables(results, retention, LATEX) + "\n")
        draw_mean_frontier(root / "frontier.png", results, retention)

    run.on_first_process(write)


def _seeds(texts: Sequence[str]) -> tuple[int, ...]:
    if not texts or not all(re.fullmatch(r"\d+", text) for text in texts) or len(set(texts)) < len(texts):
        raise ValueError(f"--seeds={','.join(texts)}: expected different whole numbers, as in --seeds=0,1,2")
    return tuple(map(int, texts))


def main(argv: Sequence[str]) -> None:
    """Runs the experiment and prints its tables."""
    config = cli.as_config(CONFIG)
    methods = listed(FLAGS.methods) or [*config.baselines, config.method]
    controls = tuple(expanded(listed(FLAGS.controls), FLAGS.partitions))
    methods = (*expanded(methods, FLAGS.partitions), *controls)
    experiment = Experiment(methods, controls, _seeds(FLAGS.seeds))
    results = run_experiment(config, FLAGS.root, experiment, overwrite=FLAGS.overwrite)
    if cli.is_first_process():
        print_text(tables(results, config.frontier.retention, MARKDOWN))


if __name__ == "__main__":
    cli.start(main)
