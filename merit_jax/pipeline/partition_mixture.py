"""`partition.json`: the datasets of each branch (MERIT Alg. 1, step 3)."""

import logging
from typing import Any

import numpy as np

from merit_jax import conflict
from merit_jax.core.seeds import fold
from merit_jax.core.text import matches
from merit_jax.core.types import Branch
from merit_jax.data.elsewhere import describe
from merit_jax.gradients.store import GradientStore
from merit_jax.partition import (
    ASSIGNMENTS,
    PARTITIONERS,
    Partition,
    divided,
    from_shares,
    make_partition,
    uses_gradients,
)
from merit_jax.partition.partitioner import Shares
from merit_jax.partition.shares import exact_counts, whole, with_core
from merit_jax.pipeline.estimate_curvature import CURVATURE, curvature_settings, curvature_similarity
from merit_jax.pipeline.measure_conflict import conflict_inputs, load_conflict, unit_rows
from merit_jax.pipeline.read_mixture import weight_inputs
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.site_split import describe_sites, known_sites, sites_of, split_by_sites
from merit_jax.pipeline.stage import Stage
from merit_jax.workdir.artifact_types import JsonArtifact
from merit_jax.workdir.artifacts import plain, read_json
from merit_jax.workdir.paths import Workdir, absolute

log = logging.getLogger("merit_jax")

SIMILARITIES = ("cosine", "gram", CURVATURE)
"""Values of `conflict.similarity`."""

ADDED = ("seed", "core", "core_datasets", "softness")
"""Keys of `config.partition` that are kept with the partition where they are not nothing."""

PAPER = {"similarity": "cosine", "centring": "columns"}
"""The paper's representation of a dataset; another one is kept with the partition that was made from it."""


def needs_conflict(run: Run) -> bool:
    """Returns whether this run's partitioner looks at gradients; it need not for a partition like another.

    Raises:
        ValueError: The partitioner is unknown.
    """
    return not run.config.partition.like and uses_gradients(run.config.partition.method)


def _inputs(run: Run) -> dict[str, Any]:
    cfg, by_conflict, representation = run.config.partition, needs_conflict(run), _representation_keys(run)
    changed = {key: plain(cfg[key]) for key in ADDED if cfg[key]}
    return {
        "partition": {"method": cfg.method, "groups": cfg.groups, **changed},
        **({"like": _shares(_other(run))} if cfg.like else {}),
        **({"sites": sites_of(run, _split_datasets(run))} if cfg.sites else {}),
        **({"representation": representation} if by_conflict and representation != PAPER else {}),
        "text": run.text_inputs,
        "datasets": run.digests(),
        **weight_inputs(run),
        "gradients": conflict_inputs(run)["gradients"] if by_conflict else None,
    }


def _assign(run: Run) -> dict[str, Any]:
    """Assigns the mixture to branches.

    Raises:
        ValueError: The datasets are too few for the partitioner's groups.
    """
    sizes = dict(zip(run.names, zip(run.samples, run.tokens, strict=True), strict=True))
    branches, sites = _branches(run)
    made = make_partition(run.config.partition.method, branches, sizes)
    if 0 in made.samples:
        raise _empty(run, made.samples.index(0))
    known = {name: {"site": site} for name, site in known_sites(run).items()}
    counted = {dataset.name: {**describe(dataset), **known.get(dataset.name, {})} for dataset in run.datasets}
    return {**made.to_dict(), "datasets": counted, **({"sites": sites} if sites else {})}


partition_mixture = Stage(_inputs, _assign, lambda run: JsonArtifact(run.workdir.partition), name="partition")
"""Assigns every dataset, or slice of one, to a branch."""


def load_partition(run: Run) -> Partition:
    """Reads the branches of `partition.json`.

    Raises:
        ValueError: The file is missing or damaged, was made from other inputs than the run's (another method, seed, theta0 or
            mixture), or names datasets that the mixture lacks.
    """
    made = Partition.from_dict(partition_mixture.read(run), str(run.workdir.partition))
    known = set(run.names)
    for branch in made.branches:
        for share in branch.shares:
            if share.dataset not in known:
                raise ValueError(f"{run.workdir.partition} names dataset {share.dataset!r}, which the mixture lacks")
    return made


def _branches(run: Run) -> tuple[tuple[Branch, ...], dict[str, Any]]:
    """Returns the branches, and what the sites of the datasets have to do with it."""
    cfg, seed = run.config.partition, run.config.seed
    if cfg.like:
        return from_shares([branch.shares for branch in _other(run).branches], seed), {}
    if cfg.method in ASSIGNMENTS:
        return ASSIGNMENTS[cfg.method](run.names, cfg.groups, seed), {}
    shares, split = np.full((len(run.names), cfg.groups), 1 / cfg.groups), _split_datasets(run)
    sites: dict[str, Any] = {}
    if 0 < split.size < cfg.groups:
        others = "; partition.core_datasets deals the others" if split.size < len(run.names) else ""
        raise ValueError(
            f"partition.groups = {cfg.groups}: {cfg.method} cannot make {cfg.groups} non-empty groups of {split.size} datasets"
            f"{others}; lower it"
        )
    if split.size:
        own, sites = _shares_and_sites(run, split)
        shares[split] = with_core(own, cfg.core)
    counts = exact_counts(shares, run.samples)
    if not counts.sum(axis=0).all():
        raise _empty(run, int(np.argmin(counts.sum(axis=0))))
    return divided(run.names, counts, seed), sites


def _shares_and_sites(run: Run, split: np.ndarray) -> tuple[Shares, dict[str, Any]]:
    """Returns the shares of the datasets that are split, and what keeping them at their sites costs."""
    sites, groups = sites_of(run, split), run.config.partition.groups
    free = _split(run, split, groups)
    if not sites:
        return free, {}
    own = split_by_sites(run, split, sites, lambda datasets, count: _split(run, datasets, count, alone=True))
    similarity = load_conflict(run)[0] if needs_conflict(run) else None
    return own, describe_sites(sites, None if similarity is None else similarity[np.ix_(split, split)], own, free)


def _split_datasets(run: Run) -> np.ndarray:
    """Returns the numbers of the datasets that are not dealt whole over all branches."""
    return np.flatnonzero(~_core_datasets(run)) if run.config.partition.core < 1 else np.arange(0)


def _empty(run: Run, branch: int) -> ValueError:
    cfg = run.config.partition
    return ValueError(
        f"partition.groups = {cfg.groups}: branch {branch} would have none of the {sum(run.samples)} examples of "
        f"{len(run.names)} datasets, as {cfg.method} divides them; lower it, or add examples"
    )


def _core_datasets(run: Run) -> np.ndarray:
    """Returns whether each dataset is dealt whole over all branches.

    Raises:
        ValueError: A pattern matches no dataset.
    """
    patterns = run.config.partition.core_datasets
    for pattern in patterns:
        if not any(matches(name, pattern) for name in run.names):
            raise ValueError(
                f"partition.core_datasets: no dataset matches {pattern!r}; the mixture has {', '.join(run.names)}"
            )
    return np.array([any(matches(name, pattern) for pattern in patterns) for name in run.names])


def _split(run: Run, datasets: np.ndarray, groups: int, *, alone: bool = False) -> Shares:
    """Returns the shares of some datasets, by the partitioner, in so many groups.

    Args:
        run: The run.
        datasets: Numbers of the datasets.
        groups: K.
        alone: Whether the axes are those of these datasets alone, where C was formed.
    """
    cfg = run.config.partition
    axes = groups.bit_length() - 1
    similarity, scores = (
        _representation(run, axes) if needs_conflict(run) else (None, np.zeros((len(run.names), axes), np.float32))
    )
    if alone and similarity is not None and axes:
        part = conflict.principal_axes(similarity[np.ix_(datasets, datasets)], axes, run.config.conflict.centring)
        scores = np.zeros((len(run.names), axes), np.float32)
        scores[datasets] = np.asarray(part.scores)
    exist = int(np.any(scores[:, :axes], axis=0).sum())
    if cfg.method == "median_split" and exist < axes <= np.log2(len(run.names)):
        log.warning(
            "the gradients of these %d datasets have %d conflict axes, and %d groups are cut along %d: along an axis that does "
            "not exist all datasets tie, and are cut in order of name at the median of their samples",
            *(datasets.size, exist, groups, axes),
        )
    partitioner = PARTITIONERS[cfg.method]
    given = (scores[datasets, :axes], np.array(run.samples)[datasets])
    options: dict[str, Any] = {
        "groups": groups,
        "seed": fold(run.config.seed, "partition", *([str(cfg.seed)] if cfg.seed else [])),
    }
    if cfg.softness and partitioner.soft is not None:
        return partitioner.soft(*given, softness=cfg.softness, **options)
    own = None if similarity is None else similarity[np.ix_(datasets, datasets)]
    return whole(partitioner(*given, similarity=own, **options), groups)


def _other(run: Run) -> Partition:
    """Reads the partition that this run's is to be like.

    Raises:
        ValueError: It is missing or damaged, or is no partition of the run's datasets by its method.
    """
    cfg = run.config.partition
    path = Workdir(absolute(cfg.like), absolute(cfg.like)).partition
    if not path.exists():
        raise ValueError(
            f"partition.like = {cfg.like!r}: {path} is missing; name the workdir of a run that has split its mixture"
        )
    found = Partition.from_dict(read_json(path), str(path))
    names = {share.dataset for branch in found.branches for share in branch.shares}
    if (found.method, len(found.branches)) != (cfg.method, cfg.groups) or names != set(run.names):
        raise ValueError(
            f"partition.like = {cfg.like!r}: {path} has {len(found.branches)} branches by {found.method} of {len(names)} "
            f"datasets, and this run asks for {cfg.groups} by {cfg.method} of {len(run.names)}; give both runs the same "
            "partition.method, partition.groups and datasets"
        )
    return found


def _shares(partition: Partition) -> list[list[list[Any]]]:
    """Returns the shares of each branch as JSON values."""
    return [[share.to_list() for share in branch.shares] for branch in partition.branches]


def _representation_keys(run: Run) -> dict[str, Any]:
    """Returns what decides the representation of a dataset: keys of `config.conflict`, and the matrix of the curvature."""
    keys = {key: run.config.conflict[key] for key in PAPER}
    return keys | ({CURVATURE: curvature_settings(run)} if keys["similarity"] == CURVATURE else {})


def _representation(run: Run, axes: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns (similarity, scores) by `config.conflict`: the paper's as stored, others, or more axes, from that and norms."""
    cfg = run.config.conflict
    if cfg.similarity == CURVATURE:
        weighed = curvature_similarity(run)
        return weighed, np.asarray(conflict.principal_axes(weighed, max(axes, 1), cfg.centring).scores)
    similarity, scores = load_conflict(run)
    if _representation_keys(run) == PAPER and scores.shape[1] >= axes:
        return similarity, scores
    if cfg.similarity not in SIMILARITIES:
        raise ValueError(f"unknown conflict.similarity {cfg.similarity!r}; known: {', '.join(SIMILARITIES)}")
    norms = GradientStore(run.workdir.gradients).norms
    lengths = norms(run.names) if cfg.similarity == "gram" else np.ones(len(scores))
    if similarity is None:
        rows = unit_rows(run)
        rows *= (lengths / np.sqrt(np.mean(lengths**2)))[:, None]
        return None, np.asarray(conflict.axes_of_rows(rows, max(axes, 1), cfg.centring).scores)
    if cfg.similarity == "gram":
        similarity = np.asarray(conflict.gram(similarity, lengths))
    return similarity, np.asarray(conflict.principal_axes(similarity, max(axes, 1), cfg.centring).scores)
