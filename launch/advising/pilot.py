"""Trains the candidates on a small share of the tokens, and measures their merged models."""

import copy
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from merit_jax.advice.observations import JOINT
from merit_jax.launch.advising.candidates import neutral
from merit_jax.launch.experiments.methods import partition_for_each, plan_comparison, train_and_merge
from merit_jax.pipeline.measure_candidate import Candidate
from merit_jax.pipeline.measure_pilot import measure_pilot
from merit_jax.pipeline.run import Run
from merit_jax.workdir.paths import Workdir

STEPS = 4
"""Optimizer steps, at least, of the shortest branch of a pilot: fewer say nothing about training."""


def check_pilot(share: float, candidates: Mapping[str, Candidate]) -> None:
    """Refuses a pilot whose branches would hardly take a step.

    Raises:
        ValueError: One would; the share that is enough is named.
    """
    method, shortest = min(((m, min(found.steps)) for m, found in candidates.items()), key=lambda item: item[1])
    if share * shortest < STEPS:
        enough = math.ceil(100 * STEPS / shortest) / 100
        mend = f"give --pilot={enough:g}" if enough <= 1 else "leave it out: all of training is too short for one"
        raise ValueError(
            f"--pilot={share:g}: the shortest branch of {method} has {shortest} optimizer steps in all, so "
            f"{share * shortest:.1f} in the pilot; it takes {STEPS}: {mend}"
        )


def run_pilot(
    run: Run, config: ConfigDict, share: float, candidates: Mapping[str, Candidate]
) -> dict[str, dict[str, Any]]:
    """Trains and merges every candidate on a share of the tokens, or resumes, and returns `measure_pilot` of them.

    Each branch sees the first part of its examples' order, under a schedule of that length.

    Args:
        run: The run, whose gradients and similarities the pilot shares.
        config: The config that candidates are variants of.
        share: Share of the tokens, above 0.
        candidates: The methods.

    Raises:
        ValueError: The branches would be too short.
    """
    check_pilot(share, candidates)
    short = copy.deepcopy(neutral(config)).unlock()
    short.train.epochs = float(share * config.train.epochs)
    home = Workdir.at(run.workdir.pilot(share), shared=run.workdir.shared)
    pilot = run.derive(short.lock(), home)
    comparison = plan_comparison(short, [JOINT, *(m for m in candidates if m != JOINT)], home.root / "methods")
    workdirs = train_and_merge(pilot, comparison, partition_for_each(pilot, comparison))
    merged = {spec: pilot.derive(task.config, workdirs[spec]) for spec, task in comparison.merged.items()}
    return measure_pilot(pilot, merged)
