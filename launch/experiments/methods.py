"""Plans, trains and merges the methods of a comparison: the config of each, the branches it merges, and its workdir."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict

from merit_jax.configs.common import parse, variant
from merit_jax.configs.schema.check import check_keys
from merit_jax.pipeline.reuse_branches import reuse_branches
from merit_jax.pipeline.rounds import in_rounds
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import timed
from merit_jax.pipeline.stages import BEFORE, run_stages, train_rounds
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir, absolute

TRAINED = ("conflict", "partition", "rounds", "train")
"""Sections of a config that decide what its branches learn."""


class PlannedRun(NamedTuple):
    """A training or a merge.

    Attributes:
        config: Its config.
        root: Its workdir.
    """

    config: ConfigDict
    root: epath.Path


class Comparison(NamedTuple):
    """The trainings and merges of several methods.

    Attributes:
        trained: Method -> the training of its branches. Methods that differ in the merge alone have one training.
        merged: Method, as it was given -> its merge.
        trainer: Method, as it was given -> its key in `trained`; none if it merges the branches of another workdir.
    """

    trained: Mapping[str, PlannedRun]
    merged: Mapping[str, PlannedRun]
    trainer: Mapping[str, str]


def plan_comparison(
    config: ConfigDict, methods: Sequence[str], folder: epath.Path, own: epath.Path | None = None
) -> Comparison:
    """Returns the trainings and merges of methods.

    Args:
        config: The config that all methods are variants of.
        methods: As `merit_jax.configs.common.variant` takes them.
        folder: Parent of their workdirs.
        own: Workdir of a run of `config` itself, whose branches are not trained again, and whose merged model WiSE matches.

    Raises:
        ValueError: A method or key is unknown, or WiSE lacks the joint run it interpolates to or the model it matches.
    """
    methods, trained, merged, trainers = list(dict.fromkeys(methods)), {}, {}, {}
    for spec in methods:
        task = variant(config, spec)
        check_keys(task)
        if in_rounds(task) and parse(spec)[0] != "wise":
            trainers[spec] = spec
            trained[spec] = PlannedRun(task, folder / _folder(spec))
        elif not task.merge.branches:
            name = trainers[spec] = training_of(spec, methods)
            training = variant(config, name)
            if in_rounds(training):
                raise ValueError(
                    f"method {spec!r} moves theta0 towards the branch of {name!r}, which is trained in rounds; list "
                    "'joint' among the methods"
                )
            home = own if own and _trains_alike(training, config) else folder / _folder(name)
            trained[name] = PlannedRun(training, home)
            if name != spec or home == own:
                with task.unlocked():
                    task.train.update(training.train)
                    task.merge.branches = str(home)
        merged[spec] = PlannedRun(task, folder / _folder(spec))
    for spec, (task, _) in merged.items():
        if task.merge.method == "interpolate" and (task.merge.match or task.merge.options == "{}"):
            with task.unlocked():
                task.merge.match = str(_matched(spec, config, merged, own))
    return Comparison(trained, merged, trainers)


def training_of(spec: str, methods: Sequence[str]) -> str:
    """Returns the method whose branches `spec` merges: `spec` without keys of the merge; for WiSE, joint training.

    Raises:
        ValueError: WiSE without a joint run.

    Examples:
        >>> training_of("soup2:merge.method=ties,train.epochs=2", [])
        'soup2:train.epochs=2'
    """
    method, overrides = parse(spec)
    kept = {key: text for key, text in overrides.items() if not key.startswith("merge.")}
    if method != "wise":
        return format_method(method, kept)
    if kept:
        return format_method("joint", kept)
    joint = [training_of(other, methods) for other in methods if parse(other)[0] == "joint"]
    if not joint:
        raise ValueError(f"method {spec!r} moves theta0 towards joint training; list 'joint' among the methods")
    return min(joint, key=lambda name: name != "joint")


def format_method(method: str, overrides: Mapping[str, str]) -> str:
    """Returns a method as text: the inverse of `merit_jax.configs.common.parse`.

    Examples:
        >>> format_method("random4", {"partition.seed": "1", "train.epochs": "2"})
        'random4:partition.seed=1,train.epochs=2'
    """
    return ":".join(filter(None, (method, ",".join(f"{key}={text}" for key, text in overrides.items()))))


def partition_for_each(run: Run, comparison: Comparison) -> dict[str, Run]:
    """Partitions the mixture for every training, from gradients and similarities that are computed once.

    Returns:
        Training -> its run.

    Raises:
        ValueError: A partitioner cannot make that many groups of these datasets.
    """
    _load_once(run, comparison)
    runs = {}
    for spec, task in comparison.trained.items():
        runs[spec] = run.derive(task.config, Workdir.at(task.root, shared=run.workdir.shared))
        run_stages(runs[spec], BEFORE)
    return runs


def train_and_merge(run: Run, comparison: Comparison, runs: Mapping[str, Run] | None = None) -> dict[str, Workdir]:
    """Trains and merges everything that is not finished; a branch that several methods have in common is trained once.

    Args:
        run: The run with the artifacts that all methods share.
        comparison: The methods.
        runs: Result of `partition_for_each`; None: it is called here.

    Returns:
        Method -> workdir of its merged model, in the order of `comparison`.
    """
    runs = partition_for_each(run, comparison) if runs is None else runs
    everyone = [run.workdir, *(other.workdir for other in runs.values())]
    for spec, training in runs.items():
        timed(run, f"training {spec}", partial(_train, training, everyone))
    workdirs = {}
    for spec, task in sorted(comparison.merged.items(), key=lambda item: bool(item[1].config.merge.match)):
        workdirs[spec] = Workdir.at(task.root, shared=run.workdir.shared)
        run_stages(run.derive(task.config, workdirs[spec]), ("search", "merge"))
    return {spec: workdirs[spec] for spec in comparison.merged}


def _train(run: Run, everyone: Sequence[Workdir]) -> bool:
    others = [other for other in everyone if other != run.workdir]
    if in_rounds(run.config):
        return train_rounds(run, others)
    adopted = reuse_branches(run, others)
    return run_stages(run, ("train",)) or adopted


def _load_once(run: Run, comparison: Comparison) -> None:
    """Loads what all methods share; theta0 is left on disk if everything is finished."""
    _ = run.datasets, run.train_step, run.theta0_fingerprint
    if not all(Workdir(task.root, task.root).merge_record.exists() for task in comparison.merged.values()):
        _ = run.params


def _matched(spec: str, config: ConfigDict, merged: Mapping[str, PlannedRun], own: epath.Path | None) -> epath.Path:
    """Returns the workdir of the model whose distance from theta0 WiSE takes: a method's, or one named by its path."""
    named = merged[spec].config.merge.match
    if not named and own:
        return own
    other = merged.get(named or config.method)
    if other and other.config.merge.method != "interpolate":
        return other.root
    if named and Workdir(absolute(named), absolute(named)).merge_record.exists():
        return absolute(named)
    raise ValueError(
        f"method {spec!r} moves theta0 as far as {named or config.method!r} does, which is not among the methods; list it, or "
        "write wise:merge.match=METHOD with one of " + ", ".join(name for name in merged if name != spec)
    )


def _trains_alike(one: ConfigDict, other: ConfigDict) -> bool:
    return all(one[section].to_dict() == other[section].to_dict() for section in TRAINED)


def _folder(spec: str) -> str:
    """Returns a file name for a method; with a digest if something had to be left out."""
    name = re.sub(r"[^\w.=-]", ",", spec)
    return name if len(name) < 120 and not re.search(r"[^\w.=:,-]", spec) else f"{name[:100]}-{fingerprint(spec)[:8]}"
