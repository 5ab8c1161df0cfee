"""`gradients/`: one reduced gradient per dataset at theta0 (MERIT Alg. 1, step 1)."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from merit_jax.core.progress import bar
from merit_jax.core.types import Batch, Dataset, Example
from merit_jax.data.bucketing import bucketed_batches, calibration_examples
from merit_jax.gradients.compression import make_compressor
from merit_jax.gradients.estimate import DatasetsPerStep, checked, fit_datasets_per_step, gradient_rows
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import is_current, read_json, write_array, write_json
from merit_jax.workdir.checksums import fingerprint, sha256_array

log = logging.getLogger("merit_jax")

SHARE = 4
"""One part in so many of a device's memory is for gradients of datasets side by side."""


def estimate_gradients(run: Run) -> bool:
    """Computes the gradients that are missing, and stores each as soon as it is there.

    A store that a killed run left half-built is completed; datasets that are new in the mixture are added.

    Returns:
        Whether any was missing.
    """
    index = gradient_index(run)
    missing = [dataset for dataset in run.datasets if dataset.name not in index["datasets"]]
    if not missing:
        return False
    cfg = run.config.gradients
    reduce = make_compressor(cfg.reduction, stride=cfg.stride, width=cfg.width)
    beside = datasets_at_once(run, missing)
    log.info("gradients of %d datasets, %d at a time: %s", len(missing), beside.datasets, beside.reason)
    index["at_once"] = beside._asdict()
    rows = gradient_rows(
        run.loss_fn,
        run.params,
        [calibration_batches(run, dataset) for dataset in missing],
        trainable=run.config.train.trainable,
        average=cfg.average,
        reduce=reduce,
        datasets_per_step=beside.datasets,
        place=lambda batch: run.place_batch(batch, leading=1),
    )
    with bar(len(missing), "gradients", "dataset") as progress:
        for dataset, row in zip(missing, rows, strict=True):
            _store(run, index, dataset, checked(row, dataset.name))
            progress.update()
    return True


def datasets_at_once(run: Run, datasets: Sequence[Dataset]) -> DatasetsPerStep:
    """Returns `gradients.datasets_per_step`, or as many as the memory of the devices allows: one where it is unknown."""
    cfg = run.config.gradients
    if cfg.datasets_per_step:
        return DatasetsPerStep(min(cfg.datasets_per_step, len(datasets)), "gradients.datasets_per_step")
    budget = cfg.datasets_per_step_bytes or _device_bytes() // SHARE
    if not budget:
        return DatasetsPerStep(
            1, "the device does not tell its memory; gradients.datasets_per_step_bytes would allow more"
        )
    samples = [calibration_examples(dataset, cfg.examples, run.config.seed) for dataset in datasets]
    longest = max((example for sample in samples for example in sample), key=lambda example: len(example.tokens))
    return fit_datasets_per_step(
        run.loss_fn,
        run.params,
        next(_batches(run, [longest])),
        trainable=run.config.train.trainable,
        average=cfg.average,
        budget=budget,
        most=len(datasets),
        place=lambda batch: run.place_batch(batch, leading=1),
    )


def _device_bytes() -> int:
    """Memory of a device; 0 where it does not tell."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)


def gradient_index(run: Run) -> dict[str, Any]:
    """The index of the store, with the entries that are still good.

    Raises:
        ValueError: The store was made at another theta0, with other settings or from other data.
    """
    path = run.workdir.gradient_index
    inputs = _inputs(run)
    if not is_current(path, inputs, overwrite=run.overwrite):
        return {"inputs": inputs, "datasets": {}}
    index = read_json(path)
    for name, digest in run.digests().items():
        entry = index["datasets"].get(name)
        if entry and entry["digest"] != digest:
            if not run.overwrite:
                raise ValueError(
                    f"{path}: the files of dataset {name!r} have changed since its gradient was taken; "
                    "use another --workdir, or --overwrite to take it again"
                )
            del index["datasets"][name]
    return index


def _inputs(run: Run) -> dict[str, Any]:
    """What all rows of the store have in common."""
    cfg = run.config.gradients
    keys = ["examples", "average", "reduction", "stride" if cfg.reduction == "stride" else "width"]
    return {
        "theta0": run.theta0_fingerprint,
        "text": dict(run.text_inputs),
        "trainable": list(run.config.train.trainable),
        "gradients": {key: cfg[key] for key in keys},
    }


def calibration_batches(run: Run, dataset: Dataset) -> Iterator[Batch]:
    """The calibration examples of a dataset, in fixed shapes; images are read as the batches are asked for."""
    return _batches(run, calibration_examples(dataset, run.config.gradients.examples, run.config.seed))


def _batches(run: Run, examples: Sequence[Example]) -> Iterator[Batch]:
    cfg = run.config.gradients
    batches = bucketed_batches(
        examples,
        buckets=cfg.buckets,
        batch_size=cfg.batch_size,
        reader=run.reader,
        image_buckets=cfg.image_buckets,
    )
    return (batch for _, batch in batches)


def _store(run: Run, index: dict[str, Any], dataset: Dataset, row: np.ndarray) -> None:
    """Writes one gradient, then the index that knows it."""
    name = f"{fingerprint(dataset.name)[:16]}.npy"
    index["datasets"][dataset.name] = {
        "file": name,
        "digest": dataset.report.digest,
        "norm": float(np.linalg.norm(row)),
        "entries": len(row),
        "sha256": sha256_array(row),
    }

    def write() -> None:
        write_array(run.workdir.gradients / name, row)
        write_json(run.workdir.gradient_index, index)

    run.on_first_process(write)
