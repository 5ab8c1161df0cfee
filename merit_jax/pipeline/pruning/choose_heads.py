"""`pruning.json`: the heads that are removed from a run's theta0, with the scores by which they were chosen."""

import logging
from typing import Any

import numpy as np

from merit_jax.pipeline.calibration import example_digests
from merit_jax.pipeline.evaluators import compared_suites, digests_of_suites, suite_scorer
from merit_jax.pipeline.pruning.order import Pruning, all_kept, kept_heads
from merit_jax.pipeline.pruning.pruning_files import files
from merit_jax.pipeline.pruning.pruning_run import as_gates, as_lists
from merit_jax.pipeline.pruning.score_heads import head_scores, model_with_heads
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage
from merit_jax.pruning import hies, removed_ratio
from merit_jax.workdir.artifact_types import JsonArtifact

log = logging.getLogger("merit_jax")

UNRECORDED = ("recovery", "curve", "draws")
"""Keys of `config.prune` that do not change which heads go."""


def _inputs(run: Run) -> dict[str, Any]:
    cfg = run.config.prune
    keys = {key: list(value) if isinstance(value, tuple) else value for key, value in cfg.items()}
    return {
        "theta0": run.theta0_fingerprint,
        "text": run.text_inputs,
        "examples": run.config.gradients.examples,
        "datasets": example_digests(run),
        "prune": {key: value for key, value in keys.items() if key not in UNRECORDED},
        **(suites_that_choose(run) if chooses_alpha(run) else {}),
        "dtype": run.compute_dtype,
    }


def chooses_alpha(run: Run) -> bool:
    """Returns whether one of several weights of importance is chosen on the suites' choosing half."""
    return run.config.prune.criterion == "hies" and len(run.config.prune.alpha) > 1


def suites_that_choose(run: Run) -> dict[str, Any]:
    """Returns everything that decides scores on the choosing half, as JSON values."""
    cfg = run.config
    return {
        "suites": digests_of_suites(run),
        "max_records": cfg.frontier.max_records,
        "max_new_tokens": cfg.evaluate.max_new_tokens,
        **compared_suites(run),
    }


def _choose(run: Run) -> dict[str, Any]:
    cfg = run.config.prune
    plans = [Pruning(cfg.criterion, cfg.ratio, alpha) for alpha in cfg.alpha]
    plans = plans if chooses_alpha(run) else plans[:1]
    found = [kept_heads(run, plan) for plan in plans]
    accuracies = [_choosing_accuracy(run, kept) for kept in found] if len(plans) > 1 else []
    best = int(np.argmax(accuracies)) if accuracies else 0
    scores, kept, alpha = head_scores(run, all_kept(run)), found[best], plans[best].alpha
    by_name = {**scores._asdict(), "hies": hies(scores, alpha)}
    log.info("%.1f %% of the heads go, by %s", 100 * removed_ratio(kept), cfg.criterion)
    return {
        "criterion": cfg.criterion,
        "alpha": alpha,
        **({"accuracies": dict(zip(map(str, cfg.alpha), accuracies, strict=True))} if accuracies else {}),
        "removed": removed_ratio(kept),
        "kept": as_lists(kept),
        "scores": {
            name: {part: np.asarray(values).tolist() for part, values in parts.items()}
            for name, parts in by_name.items()
        },
    }


def _choosing_accuracy(run: Run, kept: dict[str, np.ndarray]) -> float:
    """Returns the mean accuracy over the choosing half of the suites of the model without some heads."""
    params = model_with_heads(run).with_gates(run.params, kept)
    scores = suite_scorer(run, "reporting").score(params, "choosing")["choosing"]
    return float(np.mean([score.accuracy for score in scores.values()]))


choose_heads = Stage(
    _inputs,
    _choose,
    lambda run: JsonArtifact(files(run).choice),
    name="prune",
    command="merit prune",
)
"""Scores the heads of theta0, and chooses those that go."""


def chosen_gates(run: Run) -> dict[str, np.ndarray]:
    """Returns, part by part, 1 for the heads that stay and 0 for the others.

    Raises:
        ValueError: They have not been chosen, or from other inputs than the run's.
    """
    return as_gates(choose_heads.read(run)["kept"])
