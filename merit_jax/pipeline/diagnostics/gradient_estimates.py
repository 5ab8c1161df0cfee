"""Diagnostics of how well the datasets' gradients are estimated, at theta0."""

import logging

import numpy as np

from merit_jax.core.seeds import fold
from merit_jax.core.types import Batch
from merit_jax.diagnostics.calibration import Blocks, Calibration, calibration
from merit_jax.diagnostics.sketch import Sketch, sketch
from merit_jax.gradients.count_sketch import CountSketch
from merit_jax.gradients.stride import Stride
from merit_jax.pipeline.branch_parameters import ADAPTER_SPACE, GradientSpace, gradient_space, gradient_space_inputs
from merit_jax.pipeline.calibration import calibration_batches
from merit_jax.pipeline.diagnostics.models import theta0
from merit_jax.pipeline.diagnostics.samples import Sample, block_batches, blocks_of
from merit_jax.pipeline.diagnostics.task import Counted, DiagnosticTask, NotPossible, Tick, Work
from merit_jax.pipeline.estimate_gradients import COORDINATES, compressor
from merit_jax.pipeline.run import Run
from merit_jax.workdir.paths import THETA0

log = logging.getLogger("merit_jax")


def calibration_task(run: Run) -> DiagnosticTask:
    """Measures the agreement of gradients of samples against their size, without datasets too small for two blocks."""
    cfg, options = run.config.diagnostics, run.config.gradients
    pools = {d.name: blocks_of(run, d, cfg.calibration_examples, cfg.calibration_block) for d in run.datasets}
    large = {name: blocks for name, blocks in pools.items() if len(blocks) > 1}
    if not large:
        raise NotPossible(
            f"no dataset has two blocks of {cfg.calibration_block} examples: lower diagnostics.calibration_block"
        )
    if small := sorted(pools.keys() - large.keys()):
        log.warning("calibration leaves out datasets of fewer than 2 blocks of examples: %s", ", ".join(small))
    keys = ("calibration_examples", "calibration_block", "calibration_sizes", "bootstrap", "reliability")

    def measure(tick: Tick) -> Calibration:
        space = _space(run)
        return calibration(
            space.loss_fn,
            space.params,
            [Blocks(name, [block_batches(run, block, tick) for block in blocks]) for name, blocks in large.items()],
            block=cfg.calibration_block,
            sizes=cfg.calibration_sizes,
            draws=cfg.bootstrap,
            target=cfg.reliability,
            seed=fold(run.config.seed, "bootstrap"),
            trainable=space.trainable,
            average=options.average,
            reduce=compressor(run),
            place=lambda batch: _stacked(run, batch),
        )

    settings = {key: list(cfg[key]) if key == "calibration_sizes" else cfg[key] for key in keys}
    return DiagnosticTask(
        {**Sample(run, cfg.calibration_examples).inputs, **gradient_space_inputs(run), **settings, **_reduction(run)},
        (Work(sum(map(len, large.values())), "gradients", cfg.calibration_block),),
        measure,
    )


def sketch_task(run: Run) -> DiagnosticTask:
    """Compares cosines of compressed gradients with those of whole ones, on some of the datasets."""
    cfg, options = run.config.diagnostics, run.config.gradients
    chosen = _chosen(run, cfg.sketch_datasets)
    if len(chosen) < 3:
        raise NotPossible(
            f"the fidelity of C needs at least 3 datasets, got {len(chosen)} (diagnostics.sketch_datasets)"
        )
    sample = Sample(run, options.examples, chosen)

    def measure(tick: Tick) -> Sketch:
        datasets, space = [dataset for dataset in run.datasets if dataset.name in chosen], _space(run)
        return sketch(
            space.loss_fn,
            space.params,
            [Counted(calibration_batches(run, dataset), tick) for dataset in datasets],
            chosen,
            strides=cfg.strides,
            widths=cfg.widths,
            trainable=space.trainable,
            average=options.average,
            place=lambda batch: _stacked(run, batch),
        )

    settings = {
        "strides": list(cfg.strides),
        "widths": list(cfg.widths),
        "average": options.average,
        COORDINATES: [Stride.definition, CountSketch.definition],
    }
    return DiagnosticTask(
        {**sample.inputs, **gradient_space_inputs(run), **settings},
        (Work(1, f"gradient of each of {len(chosen)} datasets", sample.count),),
        measure,
    )


def _space(run: Run) -> GradientSpace:
    """Returns what the run's gradients are taken of; a whole theta0 is not kept."""
    if run.config.gradients.space == ADAPTER_SPACE:
        return gradient_space(run)
    return GradientSpace(run.loss_fn, theta0(run)[THETA0], run.config.train.trainable)


def _chosen(run: Run, most: int) -> list[str]:
    """Returns the names of at most so many datasets, drawn by seed; 0: all."""
    order = np.random.default_rng(fold(run.config.seed, "sketch")).permutation(run.names).tolist()
    return sorted(order[:most] if most else order)


def _reduction(run: Run) -> dict:
    cfg = run.config.gradients
    keys = ("average", "reduction", "stride" if cfg.reduction == "stride" else "width")
    return {**{key: cfg[key] for key in keys}, COORDINATES: compressor(run).definition}


def _stacked(run: Run, batch: Batch) -> Batch:
    """Puts a batch of one dataset on the devices, for a gradient."""
    return run.place_batch(batch, leading=1)
