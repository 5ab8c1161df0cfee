"""The sections of the report, each a function of what the run's workdir holds."""

from merit_jax.report.sections.conflict import conflict
from merit_jax.report.sections.costs import costs
from merit_jax.report.sections.curvature import curvature
from merit_jax.report.sections.evaluation import evaluation
from merit_jax.report.sections.gain import gain
from merit_jax.report.sections.gradients import gradients
from merit_jax.report.sections.landscape import landscape
from merit_jax.report.sections.provenance import provenance
from merit_jax.report.sections.split import split
from merit_jax.report.sections.summary import summary
from merit_jax.report.sections.training import training

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
    costs,
    provenance,
)
"""In the order of the page."""
