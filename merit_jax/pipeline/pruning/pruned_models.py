"""The models of a pruning run that are evaluated: theta0 whole, pruned, and trained again."""

from functools import partial
from typing import Any

from merit_jax.checkpoints.readers import SomeLeaves
from merit_jax.core.heads import ByHead
from merit_jax.core.leaves import LeafReader
from merit_jax.pipeline.evaluated_models import EvaluatedModel, start
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.merge_record import read_merge
from merit_jax.pipeline.pruning.choose_heads import choose_heads, chooses_alpha, chosen_gates
from merit_jax.pipeline.pruning.pruning_files import files
from merit_jax.pipeline.pruning.pruning_run import GatedLeaves
from merit_jax.pipeline.pruning.recover import recovery_run
from merit_jax.pipeline.pruning.score_heads import model_with_heads
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import plain
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import THETA0, Workdir
from merit_jax.workdir.pruning_files import PRUNED, RECOVERED, WHOLE


def pruned_leaves(run: Run, kept: ByHead) -> GatedLeaves:
    """Returns the parameters of theta0 with closed heads."""
    return GatedLeaves(run.theta0.leaves(), model_with_heads(run), kept)


def recovered_leaves(run: Run, part: Run, kept: ByHead) -> GatedLeaves:
    """Returns the parameters of the model that a recovery run has trained, whose heads are still closed.

    Raises:
        ValueError: It is not trained, or its files are damaged.
    """
    trained = SomeLeaves(merged_leaves(part.workdir), run.theta0.leaves().paths())
    return GatedLeaves(trained, model_with_heads(run), kept)


def own_recovery(run: Run) -> Run:
    """Returns the recovery of the heads that the run has chosen."""
    return recovery_run(run, chosen_gates(run), Workdir.at(files(run).recovery))


def final_leaves(run: Run) -> LeafReader:
    """Returns the parameters of the run's last model: the pruned one, trained again if `prune.recovery` says so."""
    kept = chosen_gates(run)
    return recovered_leaves(run, own_recovery(run), kept) if run.config.prune.recovery else pruned_leaves(run, kept)


def models_of_pruning(run: Run) -> dict[str, EvaluatedModel]:
    """Returns theta0, the pruned model, and with `prune.recovery` the one trained again.

    Raises:
        ValueError: One of them is not there yet, or was made from other inputs.
    """
    kept = chosen_gates(run)
    found = {WHOLE: start(run), PRUNED: EvaluatedModel(partial(pruned_leaves, run, kept), inputs_of(run, PRUNED), None)}
    if run.config.prune.recovery:
        leaves = partial(recovered_leaves, run, own_recovery(run), kept)
        found[RECOVERED] = EvaluatedModel(leaves, inputs_of(run, RECOVERED), None)
    return found


def inputs_of(run: Run, name: str) -> dict[str, Any]:
    """Returns what the pruned or the recovered model was made from."""
    chosen = fingerprint(plain(choose_heads.recorded(run)))
    found: dict[str, Any] = {THETA0: run.theta0_fingerprint, "pruning": chosen, **search_of_alpha(run)}
    if name == RECOVERED:
        found["recovery"] = fingerprint(read_merge(own_recovery(run))["inputs"])
    return found


def search_of_alpha(run: Run) -> dict[str, Any]:
    """Returns, where alpha was chosen on suites, the input of a model that says so: it is scored on their other half."""
    return {"search": {"suites": choose_heads.recorded(run)["suites"]}} if chooses_alpha(run) else {}


def last_model(run: Run) -> str:
    """Returns the name of the model that a pruning run ends in."""
    return RECOVERED if run.config.prune.recovery else PRUNED
