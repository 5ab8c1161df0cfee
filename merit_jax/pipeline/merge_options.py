"""The options of a run's merge operator, from its config."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from merit_jax.core.registry import lookup
from merit_jax.merging import MERGERS
from merit_jax.merging.options import declared_options
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir


def given_options(cfg: Any) -> dict[str, Any]:
    """Parses `merge.options` of a config.

    Args:
        cfg: The section `merge`.

    Raises:
        ValueError: It is no JSON object.
    """
    try:
        options = json.loads(cfg.options)
    except json.JSONDecodeError as error:
        raise ValueError(f"merge.options = {cfg.options!r} is not JSON ({error}); write an object, as '{{}}'") from None
    if not isinstance(options, dict):
        raise ValueError(f"merge.options = {cfg.options!r}; expected a JSON object, as '{{}}'")
    return options


def merge_options(run: Run) -> dict[str, Any]:
    """Returns the operator's options, with the run's seed, and under "match" the model whose distance decides the scale."""
    cfg = run.config.merge
    options = given_options(cfg)
    if "seed" in declared_options(lookup(MERGERS, cfg.method, "merge.method").leaf):
        options.setdefault("seed", run.config.seed)
    if cfg.match:
        path = Workdir.at(cfg.match).merge_record
        record = read_json(path)
        if record["inputs"]["theta0"] != run.theta0_fingerprint:
            raise ValueError(f"merge.match = {cfg.match!r}: {path} starts from another theta0; name a run of this one")
        options["match"] = {"displacement": record["displacement"]["merged"], "inputs": fingerprint(record["inputs"])}
    return options


def match_displacement(options: Mapping[str, Any], distances: Sequence[float]) -> dict[str, Any]:
    """Replaces "match" by the scale that moves theta0 as far towards the one branch as the matched model is.

    Args:
        options: As `merge_options` returns them.
        distances: Of each branch from theta0.

    Raises:
        ValueError: There are several branches.
    """
    options = dict(options)
    if (match := options.pop("match", None)) is None:
        return options
    if len(distances) != 1:
        raise ValueError(f"merge.match moves theta0 towards one branch; there are {len(distances)}")
    return {**options, "scale": match["displacement"] / distances[0]}
