"""Which heads of a run's theta0 a criterion removes, at any ratio: scored, and removed, in one round or several."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from merit_jax.core.heads import ByHead
from merit_jax.core.registry import lookup
from merit_jax.core.seeds import fold
from merit_jax.pipeline.pruning.score_heads import head_scores, model_with_heads
from merit_jax.pipeline.run import Run
from merit_jax.pruning import CRITERIA, HeadFacts, HeadScores, choose


class Pruning(NamedTuple):
    """A way to prune a model.

    Attributes:
        criterion: Name of `merit_jax.pruning.CRITERIA`.
        ratio: Share of heads to remove.
        alpha: Weight of importance in HIES.
        draw: Number of a random order.
    """

    criterion: str
    ratio: float
    alpha: float
    draw: int = 0


def all_kept(run: Run) -> dict[str, np.ndarray]:
    """Returns ones for the heads of the parts of `prune.parts`.

    Raises:
        ValueError: The model has no heads in one of them.
    """
    counts = model_with_heads(run).heads
    for part in run.config.prune.parts:
        if part not in counts:
            raise ValueError(f"prune.parts: this model has no heads in {part!r}; it has them in {', '.join(counts)}")
    return {part: np.ones((counts[part].layers, counts[part].heads), bool) for part in run.config.prune.parts}


def check_ratios(run: Run) -> None:
    """Compares `prune.ratio` and the ratios of `prune.curve` with the model's numbers of heads, before any head is scored.

    Raises:
        ValueError: One cannot be reached.
    """
    cfg, counts = run.config.prune, model_with_heads(run).heads
    alike = {part: np.zeros(gates.shape) for part, gates in all_kept(run).items()}
    groups = {part: counts[part].groups for part in alike}
    several = len(alike) > 1  # units of several sizes: the scores decide whether a small ratio removes one
    for ratio in (cfg.ratio, *cfg.curve):
        choose(alike, groups, ratio, unit=cfg.unit, spread=cfg.spread, keep=cfg.keep, coarse=several)


def kept_heads(run: Run, pruning: Pruning) -> dict[str, np.ndarray]:
    """Returns, part by part, True for the heads that stay; what is to be measured for that is measured.

    In each of `prune.rounds`, heads are scored with those closed that are pruned already, and an equal part of the ratio goes.

    Raises:
        ValueError: The ratio cannot be reached, or heads cannot be scored.
    """
    cfg, model, kept = run.config.prune, model_with_heads(run), all_kept(run)
    groups = {part: model.heads[part].groups for part in kept}
    every = run.shared.once("head_norms", run.theta0, lambda: jax.device_get(model.head_norms(run.params)))
    norms = {part: every[part] for part in kept}
    for number in range(1, cfg.rounds + 1):
        scores = _of_open(head_scores(run, kept), kept)
        facts = HeadFacts(scores, norms, pruning.alpha, fold(run.config.seed, "heads", str(pruning.draw)))
        values = lookup(CRITERIA, pruning.criterion, "prune.criterion")(facts)
        kept = choose(
            {part: np.where(kept[part], values[part], -1 - np.abs(values[part]).max()) for part in kept},
            groups,
            pruning.ratio * number / cfg.rounds,
            unit=cfg.unit,
            spread=cfg.spread,
            keep=cfg.keep,
            coarse=number < cfg.rounds,
        )
    return kept


def _of_open(scores: HeadScores, kept: Mapping[str, np.ndarray]) -> HeadScores:
    """Returns scores in which closed heads have the lowest importance and the highest entropy of the others."""

    def closed(values: ByHead, worst: float) -> dict[str, np.ndarray]:
        return {part: np.where(kept[part], values[part], worst) for part in kept}

    def of_others(values: ByHead) -> np.ndarray:
        return np.concatenate([np.asarray(values[part])[kept[part]] for part in kept])

    importance, entropy = scores
    return HeadScores(closed(importance, of_others(importance).min()), closed(entropy, of_others(entropy).max()))
