"""`partition.json`: what each branch trains on (MERIT Alg. 1, step 3)."""

import numpy as np

from merit_jax import conflict
from merit_jax.core.registry import lookup
from merit_jax.core.seeds import fold
from merit_jax.core.types import Branch
from merit_jax.gradients.store import gradient_norms
from merit_jax.partition.branches import ASSIGNMENTS, Partition, from_groups, make_partition
from merit_jax.partition.median_split import PARTITIONERS
from merit_jax.pipeline.measure_conflict import load_conflict, unit_rows
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import is_current, read_inputs, read_json, write_json
from merit_jax.workdir.checksums import fingerprint

BY_CONFLICT = ("median_split", "kmeans", "conflict_induced")
"""Partitioners that look at the datasets' gradients; the others need neither gradients nor similarities."""

SIMILARITIES = ("cosine", "gram")
"""Values of `conflict.similarity`."""

PAPER = {"similarity": "cosine", "centring": "columns"}
"""The paper's representation of a dataset; another one is kept with the partition that was made from it."""


def needs_conflict(run: Run) -> bool:
    """Whether this run's partitioner looks at gradients."""
    return run.config.partition.method in BY_CONFLICT


def partition_mixture(run: Run) -> bool:
    """Assigns the mixture to branches.

    Raises:
        ValueError: The partitioner is unknown, or the datasets are too few for its groups.
    """
    cfg = run.config.partition
    lookup({**PARTITIONERS, **ASSIGNMENTS}, cfg.method, "partition.method")
    representation = _representation_keys(run)
    inputs = {
        "partition": {"method": cfg.method, "groups": cfg.groups, **({"seed": cfg.seed} if cfg.seed else {})},
        **({"representation": representation} if needs_conflict(run) and representation != PAPER else {}),
        "text": dict(run.text_inputs),
        "datasets": run.digests(),
        "conflict": fingerprint(read_inputs(run.workdir.conflict)) if needs_conflict(run) else None,
    }
    path = run.workdir.partition
    if is_current(path, inputs, overwrite=run.overwrite):
        return False
    made = make_partition(
        cfg.method, _branches(run), dict(zip(run.names, zip(run.samples, run.tokens, strict=True), strict=True))
    )
    run.on_first_process(lambda: write_json(path, {"inputs": inputs, **made.to_dict()}))
    return True


def load_partition(run: Run) -> Partition:
    """The branches as `partition.json` has them.

    Raises:
        ValueError: The file is missing, damaged or names datasets that the mixture lacks.
    """
    data = dict(read_json(run.workdir.partition))
    data.pop("inputs", None)
    made = Partition.from_dict(data, str(run.workdir.partition))
    known = set(run.names)
    for branch in made.branches:
        for share in branch.shares:
            if share.dataset not in known:
                raise ValueError(f"{run.workdir.partition} names dataset {share.dataset!r}, which the mixture lacks")
    return made


def _branches(run: Run) -> tuple[Branch, ...]:
    cfg, seed = run.config.partition, run.config.seed
    if cfg.method in ASSIGNMENTS:
        return ASSIGNMENTS[cfg.method](run.names, cfg.groups, seed)
    axes = cfg.groups.bit_length() - 1
    similarity, scores = (
        _representation(run, axes) if needs_conflict(run) else (None, np.zeros((len(run.names), axes), np.float32))
    )
    groups = PARTITIONERS[cfg.method](
        scores[:, :axes],
        np.array(run.samples),
        similarity=similarity,
        groups=cfg.groups,
        seed=fold(seed, "partition", *([str(cfg.seed)] if cfg.seed else [])),
    )
    return from_groups(run.names, groups, seed)


def _representation_keys(run: Run) -> dict[str, str]:
    """The keys of `config.conflict` that decide where a dataset lies."""
    return {key: run.config.conflict[key] for key in PAPER}


def _representation(run: Run, axes: int) -> tuple[np.ndarray | None, np.ndarray]:
    """(similarity, scores) by `config.conflict`: the paper's from `conflict.npz`, others, or more axes, from that and norms."""
    cfg = run.config.conflict
    similarity, scores = load_conflict(run)
    if _representation_keys(run) == PAPER and scores.shape[1] >= axes:
        return similarity, scores
    if cfg.similarity not in SIMILARITIES:
        raise ValueError(f"unknown conflict.similarity {cfg.similarity!r}; known: {', '.join(SIMILARITIES)}")
    lengths = np.array(gradient_norms(run)) if cfg.similarity == "gram" else np.ones(len(scores))
    if similarity is None:
        rows = unit_rows(run)
        rows *= (lengths / np.sqrt(np.mean(lengths**2)))[:, None]
        return None, np.asarray(conflict.axes_of_rows(rows, max(axes, 1), cfg.centring).scores)
    if cfg.similarity == "gram":
        similarity = np.asarray(conflict.gram(similarity, lengths))
    return similarity, np.asarray(conflict.principal_axes(similarity, max(axes, 1), cfg.centring).scores)
