"""Prunes the attention heads of a model: scores, choice, recovery, export, evaluation."""

import logging

from etils import epath

from merit_jax.pipeline.evaluate_models import evaluate, has_records
from merit_jax.pipeline.pruning.choose_heads import choose_heads
from merit_jax.pipeline.pruning.export_pruned import check_out, export_pruned, measure_costs
from merit_jax.pipeline.pruning.order import check_ratios
from merit_jax.pipeline.pruning.pruned_models import models_of_pruning, own_recovery
from merit_jax.pipeline.pruning.pruning_run import pruning_run
from merit_jax.pipeline.pruning.recover import recover
from merit_jax.pipeline.pruning.trace_pruning import trace_pruning
from merit_jax.pipeline.run import Run

log = logging.getLogger("merit_jax")


def prunes(config: object) -> bool:
    """Returns whether a config asks for pruning."""
    return bool(config.prune.ratio)  # type: ignore[attr-defined]


def prune_merged(run: Run) -> bool:
    """Prunes the merged model of a run, in the folder `pruned` of its workdir; returns whether there was anything to do."""
    return prune(pruning_run(run))


def prune(run: Run, out: epath.Path | None = None) -> bool:
    """Prunes theta0 of a run, in its workdir.

    Args:
        run: The run.
        out: Folder of the exported model; None: `hf` in the workdir.

    Returns:
        Whether there was anything to do.

    Raises:
        ValueError: The ratio cannot be reached, the heads cannot be scored, or an artifact was made from other inputs.
    """
    check_out(run, out)
    check_ratios(run)
    worked = [choose_heads(run)]
    if run.config.prune.recovery:
        log.info("the pruned model is trained on %g of every dataset", run.config.prune.recovery)
        worked.append(recover(own_recovery(run)))
    worked += [export_pruned(run, out), measure_costs(run, out)]
    if has_records(run):
        worked.append(evaluate(run, lambda: models_of_pruning(run)))
        worked.append(trace_pruning(run))
    else:
        log.warning("the pruned model is not evaluated: there are no suites, and no dataset has held-out records")
    return any(worked)
