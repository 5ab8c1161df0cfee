"""Lists the methods that advice compares, and measures each on the mixture."""

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from merit_jax.advice.observations import JOINT
from merit_jax.configs.common import variant
from merit_jax.configs.schema.check import check_keys
from merit_jax.partition import ASSIGNMENTS
from merit_jax.pipeline.estimate_curvature import uses_curvature
from merit_jax.pipeline.measure_candidate import Candidate, measure_candidate
from merit_jax.pipeline.measure_mixture import gradient_gram
from merit_jax.pipeline.rounds import in_rounds
from merit_jax.pipeline.run import Run

log = logging.getLogger("merit_jax")

CORE = 0.25
"""Share of every dataset in the common core of a candidate that has one."""


class Candidates(NamedTuple):
    """The methods that are compared.

    Attributes:
        measured: Method -> it on the mixture; joint training first.
        impossible: Method -> the reason why the mixture cannot be divided so.
    """

    measured: dict[str, Candidate]
    impossible: dict[str, str]


def default_methods(branches: Sequence[int]) -> list[str]:
    """Returns joint training, and for each number of branches slices, a random split and MERIT, with and without a core.

    MERIT needs a power of two.

    Examples:
        >>> default_methods([2])[:4]
        ['joint', 'examples2', 'random2', 'merit1d']
    """
    found = [JOINT]
    for count in branches:
        merit = [f"merit{count.bit_length() - 1}d"] if count.bit_count() == 1 else []
        splits = [f"random{count}", *merit]
        found += [f"examples{count}", *splits, *(f"{name}:partition.core={CORE}" for name in splits)]
    return found


def neutral(config: ConfigDict) -> ConfigDict:
    """Returns a config of one round without a core and with the plain merge, for candidates to say what they have."""
    found = copy.deepcopy(config).unlock()
    found.partition.update({"core": 0.0, "core_datasets": (), "softness": 0.0, "like": ""})
    found.merge.branches, found.merge.match, found.merge.options = "", "", "{}"
    found.merge.search_evaluations = found.merge.search_blocks = 0
    found.rounds.count, found.rounds.warm = 1, 0.0
    return found.lock()


def configs_of(config: ConfigDict, methods: Sequence[str]) -> dict[str, ConfigDict]:
    """Returns the config of each method; joint training, with which all are compared, is put first.

    Raises:
        ValueError: A method is unknown, or is one of another budget, merge or number of rounds, which advice does not forecast.
    """
    base, found = neutral(config), {}
    for spec in dict.fromkeys((JOINT, *methods)):
        found[spec] = variant(base, spec)
        check_keys(found[spec])
        merge, split, copies = found[spec].merge, found[spec].partition, found[spec].partition.method == "replicate"
        if split.softness or split.core_datasets or split.like or uses_curvature(found[spec]):
            raise ValueError(
                f"--methods: {spec!r} divides the mixture in a way that the map has not measured; of the keys of partition, "
                "advice knows method, groups and core, and of conflict.similarity all values but curvature"
            )
        if copies or merge.method != "token_weighted" or merge.search_evaluations or in_rounds(found[spec]):
            raise ValueError(
                f"--methods: {spec!r} has copies of the data, another merge or rounds; advice is about ways to divide the "
                "mixture: joint, examplesK, randomK, meritRd and the like, with partition.core"
            )
    return found


def measure_candidates(run: Run, measured: Mapping[str, Any], configs: Mapping[str, ConfigDict]) -> Candidates:
    """Measures every method that the mixture has enough datasets for.

    Args:
        run: The run, whose similarities are measured.
        measured: Result of `measure_mixture`.
        configs: Result of `configs_of`.
    """
    gram, found, impossible = gradient_gram(run, measured), {}, {}
    for spec, config in configs.items():
        cfg = config.partition
        if cfg.method not in ASSIGNMENTS and cfg.groups > len(run.names):
            impossible[spec] = f"{len(run.names)} datasets cannot fill {cfg.groups} branches"
            continue
        log.info("measuring %s", spec)
        found[spec] = measure_candidate(run.derive(config, run.workdir), gram)
    return Candidates(found, impossible)
