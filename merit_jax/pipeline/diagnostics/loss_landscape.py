"""Tasks that evaluate the loss between and around finished models."""

from merit_jax.core.seeds import fold
from merit_jax.diagnostics.connectivity import connectivity, evaluations
from merit_jax.diagnostics.displacement import inner_products
from merit_jax.diagnostics.perturbation import perturbation
from merit_jax.diagnostics.surface import Surface, axis_leaves, plane, surface
from merit_jax.pipeline.branch_parameters import trained_paths
from merit_jax.pipeline.diagnostics.models import Models, theta0, trained
from merit_jax.pipeline.diagnostics.samples import Sample
from merit_jax.pipeline.diagnostics.task import DiagnosticTask, Tick, Work
from merit_jax.pipeline.run import Run
from merit_jax.workdir.paths import MERGED, THETA0

LOSSES = "loss evaluations"


def connectivity_task(run: Run) -> DiagnosticTask:
    """Measures the loss on the lines between all branches and the merged model."""
    cfg, found = run.config.diagnostics, trained(run, branches=2)
    sample, models = Sample(run, cfg.examples), Models(run, {**found.branches, MERGED: found.merged})
    inputs = {key: found.inputs[key] for key in ("branches", "merged")}
    return DiagnosticTask(
        {**sample.inputs, **inputs, "points": cfg.points},
        (Work(evaluations(len(models), cfg.points), LOSSES, sample.count),),
        lambda tick: connectivity(run.loss_fn, models, sample.batches(tick), points=cfg.points),
    )


def perturbation_task(run: Run) -> DiagnosticTask:
    """Measures the loss of the merged model under weight noise, and of joint training under the same."""
    cfg, found = run.config.diagnostics, trained(run)
    sample, models = Sample(run, cfg.examples), Models(run, found.compared())
    inputs = {key: found.inputs[key] for key in ("merged", "joint")}
    return DiagnosticTask(
        {**sample.inputs, **inputs, "sigmas": list(cfg.sigmas), "draws": cfg.draws},
        (Work(len(models) * (1 + len(cfg.sigmas) * cfg.draws), LOSSES, sample.count),),
        lambda tick: perturbation(
            run.loss_fn,
            models,
            sample.batches(tick),
            sigmas=cfg.sigmas,
            draws=cfg.draws,
            seed=fold(run.config.seed, "perturbation"),
            trainable=run.config.train.trainable,
        ),
    )


def surface_task(run: Run) -> DiagnosticTask:
    """Measures the loss on the plane of theta0, the merged model and the branches."""
    cfg, found = run.config.diagnostics, trained(run, branches=2)
    sample = Sample(run, cfg.examples)
    inputs = {key: found.inputs[key] for key in ("branches", "merged")}

    def measure(tick: Tick) -> Surface:
        base, readers = run.theta0.leaves(), {**found.branches, MERGED: found.merged}
        paths, start = trained_paths(run), theta0(run)
        frame = plane(inner_products(base, list(readers.values()), paths))
        first, second = (
            start.place(axis_leaves(base, list(readers.values()), weights, paths)) for weights in frame.axes
        )
        return surface(
            run.loss_fn,
            start[THETA0],
            (first, second),
            frame,
            list(readers),
            sample.batches(tick),
            points=cfg.grid,
            margin=cfg.margin,
        )

    return DiagnosticTask(
        {**sample.inputs, **inputs, "grid": cfg.grid, "margin": cfg.margin},
        (Work(cfg.grid**2, LOSSES, sample.count),),
        measure,
    )
