"""Runs an experiment: methods over seeds, everything that several need computed once, and tables of the results."""

import copy
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict

from merit_jax.comparison.results import MethodPlan, MethodResult, summarise, to_json
from merit_jax.comparison.styles import LATEX, MARKDOWN
from merit_jax.comparison.tables import tables
from merit_jax.configs.common import parse
from merit_jax.core.registry import lookup
from merit_jax.launch.experiments.budgets import budget, check_budgets, check_tokens, copies
from merit_jax.launch.experiments.figures import draw_gains, draw_mean_frontier
from merit_jax.launch.experiments.gains import Gain, read_gains
from merit_jax.launch.experiments.gains import to_json as gains_to_json
from merit_jax.launch.experiments.methods import (
    Comparison,
    format_method,
    partition_for_each,
    plan_comparison,
    train_and_merge,
)
from merit_jax.launch.experiments.read_results import read_results
from merit_jax.launch.wiring import basin, open_run
from merit_jax.pipeline.evaluate_models import evaluate_models
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.rounds import in_rounds, planned_tokens
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.run_diagnostics import DIAGNOSTICS, run_diagnostics
from merit_jax.pipeline.trace_frontier import trace_frontier
from merit_jax.workdir.artifacts import write_json, write_text
from merit_jax.workdir.paths import THETA0, Workdir, absolute

log = logging.getLogger("merit_jax")


class Experiment(NamedTuple):
    """Methods and seeds to compare.

    Attributes:
        methods: All methods, random ones once per partition; those of one budget, then the controls.
        controls: The methods with another budget.
        seeds: Values of `config.seed`.
        diagnostics: Diagnostics of every method that has the artifacts for them.
        paper: Method -> the paper's value, which the tables show in a column of its own.
        tables: Folder of the results, inside the root; "" is the root itself.
    """

    methods: tuple[str, ...]
    controls: tuple[str, ...]
    seeds: tuple[int, ...]
    diagnostics: tuple[str, ...] = ()
    paper: Mapping[str, str] = MappingProxyType({})
    tables: str = ""


def run_experiment(
    config: ConfigDict, root: epath.PathLike, experiment: Experiment, *, overwrite: bool
) -> dict[str, MethodResult]:
    """Runs all methods for one seed after the other, and writes the results after each.

    Raises:
        ValueError: A method is unknown or incomplete, or budgets differ; nothing has been done then.
    """
    for name in experiment.diagnostics:
        lookup(DIAGNOSTICS, name, "--diagnose")
    root = absolute(root)
    planned = plan_comparison(config, experiment.methods, root)
    check_budgets({name: task.config for name, task in planned.merged.items()}, experiment.controls)
    config = basin.prepare_theta0(config, root, overwrite=overwrite)
    run, found, gained, results = None, [], [], {}
    for seed in experiment.seeds:
        folder, seeded = root / f"seed-{seed}", _seeded(config, seed)
        run = run.derive(seeded, Workdir.at(folder)) if run else open_run.open_run(seeded, folder, overwrite=overwrite)
        comparison = plan_comparison(seeded, experiment.methods, folder / "methods")
        runs = partition_for_each(run, comparison)
        check_tokens(_tokens(runs, comparison, experiment.controls))
        workdirs = train_and_merge(run, comparison, runs)
        _diagnose(run, comparison, workdirs, experiment.diagnostics)
        evaluate_models(run, workdirs)
        trace_frontier(run, workdirs)
        found += [(label(result.variant), result) for result in read_results(seeded, run.workdir, comparison)]
        gained += read_gains(seed, comparison)
        results = summarise(plans(comparison, experiment.controls), found)
        _write(run, root / experiment.tables if experiment.tables else root, results, gained, experiment.paper)
    return results


def plans(comparison: Comparison, controls: Sequence[str]) -> dict[str, MethodPlan]:
    """Returns branches, budget and random control of every method and of theta0, by label."""
    found = {THETA0: MethodPlan(branches=0, passes=0.0, control=False, random=None)}
    labels = set(map(label, comparison.merged))
    for spec, (config, _) in comparison.merged.items():
        trained = comparison.trained[comparison.trainer[spec]].config if spec in comparison.trainer else config
        branches = trained.partition.groups
        name, random = label(spec), _random_split(spec, branches, labels)
        found[name] = MethodPlan(branches, budget(trained), spec in controls, random if random != name else None)
    return found


def _random_split(spec: str, branches: int, labels: Collection[str]) -> str | None:
    """Returns the random split into as many branches that a method is compared with; None if none is among the methods.

    If there is one with the method's own keys of the partition, the training and the merge, it is that: the split alone differs.

    Examples:
        >>> _random_split("merit2d:train.epochs=4,merge.method=ties", 4, {"random4", "random4:train.epochs=4"})
        'random4:train.epochs=4'
        >>> _random_split("merit2d:partition.core=0.25", 4, {"random4", "random4:partition.core=0.25"})
        'random4:partition.core=0.25'
    """
    overrides = parse(label(spec))[1]
    choices = (
        ("partition", "rounds", "train", "merge"),
        ("rounds", "train", "merge"),
        ("rounds", "train"),
        ("train",),
        (),
    )
    for sections in choices:
        kept = {key: text for key, text in overrides.items() if key.partition(".")[0] in sections}
        if (name := format_method(f"random{branches}", kept)) in labels:
            return name
    return None


def label(spec: str) -> str:
    """Returns the method of a run: partitions of one random split are one method.

    Examples:
        >>> label("random4:partition.seed=1")
        'random4'
    """
    method, overrides = parse(spec)
    return format_method(method, {key: text for key, text in overrides.items() if key != "partition.seed"})


def parse_methods(text: str) -> list[str]:
    """Returns the methods of a flag; a comma may also stand between a method's overrides, or inside one.

    Examples:
        >>> parse_methods("joint:train.epochs=2,train.eps=1e-6,random4")
        ['joint:train.epochs=2,train.eps=1e-6', 'random4']
    """
    found: list[str] = []
    for part in filter(None, re.split(r",(?=[a-z])", text)):
        if found and re.match(r"\w+\.\w+=", part):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def repeat_random_splits(methods: Sequence[str], partitions: int) -> Iterator[str]:
    """Yields the methods, random splits once per partition; theta0, which is always evaluated, is left out.

    Examples:
        >>> list(repeat_random_splits(["joint", "random4"], 2))
        ['joint', 'random4', 'random4:partition.seed=1']
    """
    for spec in methods:
        method, overrides = parse(spec)
        if spec != THETA0:
            yield spec
        if method.startswith("random") and "partition.seed" not in overrides:
            for seed in range(1, partitions):
                yield format_method(method, {"partition.seed": str(seed), **overrides})


def _seeded(config: ConfigDict, seed: int) -> ConfigDict:
    seeded = copy.deepcopy(config)
    seeded.seed = seed
    return seeded


def _tokens(runs: Mapping[str, Run], comparison: Comparison, controls: Sequence[str]) -> dict[str, float]:
    """Returns the supervised tokens of every training, by its partition, for one run of the common budget."""
    compared = {name for spec, name in comparison.trainer.items() if spec not in controls}
    return {
        name: run.config.train.epochs * (_epoch_tokens(run) / copies(run.config))
        for name, run in runs.items()
        if name in compared
    }


def _epoch_tokens(run: Run) -> int:
    """Returns the supervised tokens of all branches in one epoch."""
    if in_rounds(run.config):
        return planned_tokens(run) * copies(run.config)
    return sum(load_partition(run).tokens)


def _diagnose(run: Run, comparison: Comparison, workdirs: Mapping[str, Workdir], names: Sequence[str]) -> None:
    """Makes the diagnostics of every method that has the artifacts for them."""
    for spec, task in comparison.merged.items() if names else ():
        log.info("diagnosing %s", spec)
        run_diagnostics(run.derive(task.config, workdirs[spec]), names, strict=False)


def _write(
    run: Run, root: epath.Path, results: dict[str, MethodResult], gained: Sequence[Gain], paper: Mapping[str, str]
) -> None:
    retention = run.config.frontier.retention
    seeds = sorted({outcome.seed for outcome in results[THETA0].outcomes})
    about = {"config": run.config.method, "seeds": seeds, "retention": retention}

    def write() -> None:
        write_text(root / "config.json", run.config.to_json_best_effort(indent=2) + "\n")
        write_json(root / "results.json", to_json(results, about))
        write_text(root / "results.md", tables(results, retention, MARKDOWN, paper) + "\n")
        write_text(root / "results.tex", tables(results, retention, LATEX, paper) + "\n")
        draw_mean_frontier(root / "frontier.png", results, retention)
        if gained:
            write_json(root / "gains.json", gains_to_json(gained))
            draw_gains(root / "gains.png", gained)

    run.on_first_process(write)
