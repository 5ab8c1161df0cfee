"""`gradients/`: one reduced gradient per dataset at theta0 (MERIT Alg. 1, step 1)."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from merit_jax.core.progress import bar
from merit_jax.core.types import Dataset
from merit_jax.data.bucketing import calibration_examples
from merit_jax.data.elsewhere import is_elsewhere
from merit_jax.gradients.compression import make_compressor
from merit_jax.gradients.compressor import Compressor
from merit_jax.gradients.estimate import DatasetsPerStep, checked, fit_datasets_per_step, gradient_rows
from merit_jax.gradients.store import GradientStore, NewRow
from merit_jax.pipeline.branch_parameters import gradient_space, gradient_space_inputs
from merit_jax.pipeline.calibration import batches_of, calibration_batches, example_digests
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import GrowingStage
from merit_jax.workdir.artifacts import read_inputs

log = logging.getLogger("merit_jax")

SHARE = 4
"""The divisor of a device's memory that gives the budget for gradients of datasets side by side."""

COORDINATES = "coordinates"
"""Key, among the inputs of a store, of the definition of what is kept of a gradient."""


def _estimate(run: Run, index: Mapping[str, Any] | None) -> Iterator[NewRow]:
    """Computes the gradients that are missing, each to be stored before the next; a half-built store is completed."""
    known = {} if index is None else _up_to_date(run, index["datasets"])
    missing = [dataset for dataset in run.datasets if dataset.name not in known and not is_elsewhere(dataset)]
    if not missing:
        return
    cfg, space = run.config.gradients, gradient_space(run)
    at_once = datasets_at_once(run, missing)
    log.info("gradients of %d datasets, %d at a time: %s", len(missing), at_once.datasets, at_once.reason)
    rows = gradient_rows(
        space.loss_fn,
        space.params,
        [calibration_batches(run, dataset) for dataset in missing],
        trainable=space.trainable,
        average=cfg.average,
        reduce=compressor(run),
        datasets_per_step=at_once.datasets,
        place=lambda batch: run.place_batch(batch, leading=1),
    )
    with bar(len(missing), "gradients", "dataset") as progress:
        for left, dataset, row in zip(range(len(missing) - 1, -1, -1), missing, rows, strict=True):
            yield NewRow(dataset.name, dataset.report.digest, checked(row, dataset.name), at_once._asdict(), left)
            progress.update()


def _up_to_date(run: Run, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries whose dataset has not changed.

    Raises:
        ValueError: A dataset has changed, and the run does not overwrite.
    """
    digests = example_digests(run)
    changed = [name for name, digest in digests.items() if name in entries and entries[name]["digest"] != digest]
    if changed and not run.overwrite:
        raise ValueError(
            f"{run.workdir.gradient_index}: the examples of dataset {changed[0]!r} have changed since its gradient was taken; "
            "use another --workdir, or --overwrite to take it again"
        )
    return {name: entry for name, entry in entries.items() if name not in changed}


def gradient_inputs(run: Run) -> dict[str, Any]:
    """Returns everything that all rows of the store have in common, as JSON values."""
    cfg = run.config.gradients
    keys = ["examples", "average", "reduction", "stride" if cfg.reduction == "stride" else "width"]
    kept = {COORDINATES: compressor(run).definition}
    return {
        "theta0": run.theta0_fingerprint,
        "text": run.text_inputs,
        **gradient_space_inputs(run),
        "gradients": {key: cfg[key] for key in keys} | kept,
        "dtype": run.compute_dtype,
    }


def _store(run: Run) -> GradientStore:
    """Returns the store.

    Raises:
        ValueError: It has coordinates of a former definition, and the run does not overwrite.
    """
    store = GradientStore(run.workdir.gradients)
    if store.path.exists() and not run.overwrite and COORDINATES not in read_inputs(store.path).get("gradients", ()):
        raise ValueError(
            f"{store.path} has gradients of an earlier version, which kept whole columns of each kernel (stride) or hashed all "
            "leaves alike (countsketch): their cosines are farther from those of whole gradients, and cannot be compared with "
            "new ones. Take them again with --overwrite, or use another --workdir"
        )
    return store


estimate_gradients = GrowingStage(gradient_inputs, _estimate, _store, name="gradients")
"""Takes one gradient per dataset at theta0; datasets that are new in the mixture are added."""


def stored_gradients(run: Run) -> Mapping[str, Any]:
    """Returns the index of the store, with the entries that are up to date.

    Raises:
        ValueError: There is no store, it was made at another theta0, with other settings or from other data.
    """
    if not estimate_gradients.is_current(run):
        return {"inputs": gradient_inputs(run), "datasets": {}}
    index = GradientStore(run.workdir.gradients).read()
    return {**index, "datasets": _up_to_date(run, index["datasets"])}


def compressor(run: Run) -> Compressor:
    """Returns the compressor of `config.gradients`."""
    cfg = run.config.gradients
    return make_compressor(cfg.reduction, stride=cfg.stride, width=cfg.width)


def datasets_at_once(run: Run, datasets: Sequence[Dataset]) -> DatasetsPerStep:
    """Returns `gradients.datasets_per_step`, or as many as the memory of the devices allows: one where it is unknown."""
    cfg = run.config.gradients
    if cfg.datasets_per_step:
        return DatasetsPerStep(min(cfg.datasets_per_step, len(datasets)), "gradients.datasets_per_step")
    budget = cfg.datasets_per_step_bytes or _device_bytes() // SHARE
    if not budget:
        return DatasetsPerStep(
            1, "the memory of the device is unknown; gradients.datasets_per_step_bytes would allow more"
        )
    samples = [calibration_examples(dataset, cfg.examples, run.config.seed) for dataset in datasets]
    longest = max((example for sample in samples for example in sample), key=lambda example: len(example.tokens))
    space = gradient_space(run)
    return fit_datasets_per_step(
        space.loss_fn,
        space.params,
        next(batches_of(run, [longest])),
        trainable=space.trainable,
        average=cfg.average,
        budget=budget,
        most=len(datasets),
        place=lambda batch: run.place_batch(batch, leading=1),
    )


def _device_bytes() -> int:
    """Returns the memory of a device; 0 where it is unknown."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
