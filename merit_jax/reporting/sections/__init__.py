"""The sections of the report, each a function of what the run's workdir holds."""

from merit_jax.reporting.sections.conflict import conflict
from merit_jax.reporting.sections.costs import costs
from merit_jax.reporting.sections.curvature import curvature
from merit_jax.reporting.sections.evaluation import evaluation
from merit_jax.reporting.sections.gain import gain
from merit_jax.reporting.sections.gradients import gradients
from merit_jax.reporting.sections.head_scores import head_scores
from merit_jax.reporting.sections.landscape import landscape
from merit_jax.reporting.sections.provenance import provenance
from merit_jax.reporting.sections.pruning import choice, pruning
from merit_jax.reporting.sections.pruning_curves import pruning_curves
from merit_jax.reporting.sections.split import split
from merit_jax.reporting.sections.summary import summary
from merit_jax.reporting.sections.training import training

SECTIONS = (
    summary,
    evaluation,
    conflict,
    split,
    training,
    landscape,
    gain,
    gradients,
    curvature,
    pruning,
    costs,
    provenance,
)
"""In the order of the page."""

SECTIONS_OF_PRUNING = (choice, pruning_curves, head_scores, costs)
"""Those of the workdir of a pruning, without a run."""
