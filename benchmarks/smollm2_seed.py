"""One seed of the study on SmolLM2: trains, merges and evaluates every method, and keeps what the study reports of it."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float
from ml_collections import ConfigDict

from benchmarks.theta0_answers import PREFIX
from merit_jax.data.manifest import read_manifest
from merit_jax.data.records import entry_digest
from merit_jax.evaluation.suites import suite_digests
from merit_jax.launch.experiments.methods import Comparison, plan_comparison
from merit_jax.launch.experiments.runner import Experiment, run_experiment
from merit_jax.partition import Partition
from merit_jax.workdir.artifacts import is_current, plain, read_arrays, read_json, write_json
from merit_jax.workdir.paths import Workdir

PATHS = {"model": "path", "mixture": "path", "evaluate": "suites"}
"""Section -> its key that names files; their contents count instead."""


def run_seed(
    config: ConfigDict, root: epath.Path, methods: Sequence[str], seed: int, theta0: str, *, keep: bool = False
) -> None:
    """Runs all methods of a seed by `merit experiment`'s runner and writes `seed-<n>.json`; a seed that has it is finished.

    Args:
        config: The study's config.
        root: The study's folder.
        methods: The methods, partitions of random splits listed.
        seed: Value of `config.seed`.
        theta0: Fingerprint of theta0.
        keep: Keep the parameters of branches and merged models, which are half a gigabyte each.

    Raises:
        ValueError: The seed was measured with other settings, methods or data; the difference is named.
    """
    path, folder = root / f"seed-{seed}.json", root / f"seed-{seed}"
    inputs = {"theta0": theta0, **seed_inputs(config, methods), "seed": seed}
    if not is_current(path, inputs, overwrite=False):
        run_experiment(config, root, Experiment(tuple(methods), (), (seed,), tables=folder.name), overwrite=False)
        write_json(path, {"inputs": plain(inputs), **measured(folder, plan(config, root, methods, seed))})
    if not keep:
        for parameters in [*folder.glob("methods/*/branches/*/checkpoints"), *folder.glob("methods/*/merged/params")]:
            parameters.rmtree()


def seed_inputs(config: ConfigDict, methods: Sequence[str]) -> dict[str, Any]:
    """Returns what decides the results of a seed, as JSON values: settings, methods, and the contents of all files."""
    settings = config.to_dict()
    for section, key in PATHS.items():
        settings[section].pop(key)
    settings.pop("seed")
    return {
        "config": settings,
        "methods": list(methods),
        "datasets": {entry.name: entry_digest(entry) for entry in read_manifest(config.mixture.path)},
        "suites": suite_digests(config.evaluate.suites),
    }


def plan(config: ConfigDict, root: epath.Path, methods: Sequence[str], seed: int) -> Comparison:
    """Returns the trainings and merges of a seed."""
    return plan_comparison(with_seed(config, seed), methods, root / f"seed-{seed}" / "methods")


def with_seed(config: ConfigDict, seed: int) -> ConfigDict:
    """Returns a copy of a config with another seed."""
    seeded = copy.deepcopy(config)
    seeded.seed = seed
    return seeded


def measured(folder: epath.Path, comparison: Comparison) -> dict[str, Any]:
    """Returns what the artifacts of a seed say beside the scores that `merit experiment` reports.

    Args:
        folder: The seed's.
        comparison: Its methods.

    Returns:
        "gradients": quartiles of the cosines between the datasets' gradients. "models": for each model `nats`, the mean negative
        log-likelihood of theta0's answers in nats per token, and for a merge of several branches `task_vector_cosine` and the
        mean cosine of gradients `inside` and `across` its branches.
    """
    shared = Workdir(folder, folder)
    arrays = read_arrays(shared.conflict) if shared.conflict.exists() else {}
    C, names = arrays.get("similarity"), arrays.get("names", np.zeros(0)).tolist()
    found = {
        name: {"nats": nats_per_token(entry["suites"])}
        for name, entry in read_json(shared.evaluation)["models"].items()
    }
    for spec, task in comparison.merged.items():
        cosine = task_vector_cosine(read_json(Workdir(task.root, task.root).merge_record))
        if cosine is not None:
            found[spec]["task_vector_cosine"] = cosine
        if spec in comparison.trainer and C is not None and task.config.partition.groups > 1:
            home = comparison.trained[comparison.trainer[spec]].root
            found[spec] |= gradient_cosines(C, dataset_shares(names, Workdir(home, home)))
    pairs = C[np.triu_indices(len(C), 1)] if C is not None else np.zeros(0)
    quartiles = np.quantile(pairs, [0, 0.25, 0.5, 0.75, 1]).tolist() if pairs.size else None
    return {"gradients": {"cosine_quartiles": quartiles, "datasets": len(names)}, "models": found}


def nats_per_token(suites: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the mean loss of theta0's answers over all their tokens.

    Examples:
        >>> suites = {"theta0_a": {"loss": 1.0, "tokens": 30}, "theta0_b": {"loss": 2.0, "tokens": 10}, "skill": {"loss": None}}
        >>> nats_per_token(suites)
        1.25
    """
    kept = [(one["loss"], one["tokens"]) for name, one in suites.items() if name.startswith(PREFIX)]
    return sum(loss * tokens for loss, tokens in kept) / sum(tokens for _, tokens in kept)


def task_vector_cosine(record: Mapping[str, Any]) -> float | None:
    """Returns the mean cosine between the task vectors of a merge's branches, from the lengths that the merge recorded.

    With `d_k = ‖δ_k‖` and `δ̄ = Σ_k w_k δ_k`, `‖δ̄‖² - Σ_k w_k² d_k² = Σ_{k≠l} w_k w_l d_k d_l cos(δ_k, δ_l)`: the mean of the
    cosines with weights `w_k w_l d_k d_l` needs no parameters.

    Args:
        record: `merge.json`.

    Returns:
        The mean; None for a single branch, or a merge that is no weighted mean.

    Examples:
        Two orthogonal branches of length 1:

        >>> record = {"weights": [0.5, 0.5], "weighted_mean": True}
        >>> round(task_vector_cosine({**record, "displacement": {"branches": [1.0, 1.0], "merged": 0.5**0.5}}), 12)
        0.0
    """
    if not record["weighted_mean"] or len(record["weights"]) < 2:
        return None
    lengths = np.array(record["weights"]) * np.array(record["displacement"]["branches"])
    own = float(lengths @ lengths)
    return (record["displacement"]["merged"] ** 2 - own) / (float(lengths.sum()) ** 2 - own)


def dataset_shares(names: Sequence[str], workdir: Workdir) -> Float[np.ndarray, "k t"]:
    """Returns the share of every dataset's examples that each branch of a partition trains on; copies of one share it."""
    branches = Partition.from_dict(read_json(workdir.partition), str(workdir.partition)).branches
    found = np.zeros((len(branches), len(names)))
    for k, branch in enumerate(branches):
        for share in branch.shares:
            found[k, names.index(share.dataset)] += share.share
    return found / found.sum(axis=0)


def gradient_cosines(C: Float[np.ndarray, "t t"], shares: Float[np.ndarray, "k t"]) -> dict[str, float]:
    """Returns the mean cosine of two datasets' gradients inside a branch, and across branches.

    A pair counts inside as often as a random example of each is in one branch: `Σ_k s_kt s_ku`; across by the rest.

    Args:
        C: Cosines of the datasets' gradients.
        shares: `s_kt`, the share of dataset t in branch k.

    Examples:
        >>> C = np.array([[1.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 1.0]])
        >>> gradient_cosines(C, np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        {'inside': 0.5, 'across': 0.15}
    """
    pairs = np.triu_indices(len(C), 1)
    together = (shares.T @ shares)[pairs]
    inside, across = together.sum(), (1 - together).sum()
    return {
        name: float(C[pairs] @ weights / total)
        for name, weights, total in (("inside", together, inside), ("across", 1 - together, across))
        if total > 0
    }
