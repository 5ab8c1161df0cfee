"""`curve.json`: theta0 pruned by every criterion at every ratio of `prune.curve`, and trained again, on the evaluated records."""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from merit_jax.core.heads import ByHead
from merit_jax.pipeline.evaluate_models import evaluate
from merit_jax.pipeline.evaluated_models import EvaluatedModel, start
from merit_jax.pipeline.merge_record import read_merge
from merit_jax.pipeline.pruning.choose_heads import choose_heads
from merit_jax.pipeline.pruning.order import Pruning, kept_heads
from merit_jax.pipeline.pruning.pruned_models import pruned_leaves, recovered_leaves, search_of_alpha
from merit_jax.pipeline.pruning.pruning_files import files
from merit_jax.pipeline.pruning.pruning_run import as_lists
from merit_jax.pipeline.pruning.recover import recover, recovery_run
from merit_jax.pipeline.run import Run
from merit_jax.pruning import CRITERIA, removed_ratio
from merit_jax.workdir.artifacts import plain
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import THETA0, Workdir
from merit_jax.workdir.pruning_files import RECOVERED, WHOLE, basis_of_curves

log = logging.getLogger("merit_jax")


def trace_pruning(run: Run) -> bool:
    """Evaluates theta0 pruned by every criterion at every ratio of `prune.curve`, and with `prune.recovery` trained again too.

    "hies" weighs by the alpha that the run has chosen; "random" has `prune.draws` orders.

    Returns:
        Whether there was a model to score.

    Raises:
        ValueError: A ratio cannot be reached; scores of these models on other records are there already.
    """
    if not run.config.prune.curve:
        return False
    return evaluate(run, lambda: _models(run), files(run).curve, "curve")


def planned(run: Run) -> list[Pruning]:
    """Returns the prunings of the curves, ratio by ratio."""
    cfg, alpha = run.config.prune, choose_heads.read(run)["alpha"]
    return [
        Pruning(criterion, float(ratio), alpha, draw)
        for ratio in cfg.curve
        for criterion in CRITERIA
        for draw in range(cfg.draws if criterion == "random" else 1)
    ]


def name_of(pruning: Pruning) -> str:
    """Returns the name of a pruned model, which is also that of its folder.

    Examples:
        >>> name_of(Pruning("hies", 0.3, 0.5)), name_of(Pruning("random", 0.3, 0.5, draw=1))
        ('hies-0.3', 'random-0.3-1')
    """
    return f"{pruning.criterion}-{pruning.ratio}" + (f"-{pruning.draw}" if pruning.criterion == "random" else "")


def _models(run: Run) -> dict[str, EvaluatedModel]:
    """Returns theta0 and the models of the curves, those with recovery trained."""
    found = {WHOLE: start(run)}
    for pruning in planned(run):
        kept = kept_heads(run, pruning)
        found |= dict(_of_pruning(run, pruning, kept))
    return found


def _of_pruning(run: Run, pruning: Pruning, kept: ByHead) -> Iterator[tuple[str, EvaluatedModel]]:
    """Yields one pruned model, and with `prune.recovery` the one trained again, with their names."""
    name, basis = name_of(pruning), basis_of_curves(plain(choose_heads.recorded(run)))
    heads = {**pruning._asdict(), "basis": basis, "removed": removed_ratio(kept), "kept": fingerprint(as_lists(kept))}
    inputs: dict[str, Any] = {THETA0: run.theta0_fingerprint, "pruning": heads, **search_of_alpha(run)}
    yield name, EvaluatedModel(partial(pruned_leaves, run, kept), inputs, None)
    if run.config.prune.recovery:
        part = recovery_run(run, kept, Workdir.at(files(run).recovery_of(name)))
        log.info("recovery of %s", name)
        recover(part)
        made_from = inputs | {"recovery": fingerprint(read_merge(part)["inputs"])}
        yield f"{name} {RECOVERED}", EvaluatedModel(partial(recovered_leaves, run, part, kept), made_from, None)
