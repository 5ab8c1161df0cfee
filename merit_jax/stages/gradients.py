"""`gradients/`: one reduced gradient per dataset at theta0 (MERIT Alg. 1, step 1)."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from merit_jax.artifact import fingerprint, is_current, read_array, read_json, vector_sum, write_array, write_json
from merit_jax.data.batching import bucketed_batches, calibration_examples
from merit_jax.gradients import SideBySide, checked, gradient_rows, side_by_side
from merit_jax.progress import bar
from merit_jax.reduction import make_reduction
from merit_jax.run import Run
from merit_jax.types import Batch, Dataset, Example

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
    reduce = make_reduction(cfg.reduction, stride=cfg.stride, width=cfg.width)
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
        vmap=beside.datasets,
        place=lambda batch: run.place_batch(batch, leading=1),
    )
    with bar(len(missing), "gradients", "dataset") as progress:
        for dataset, row in zip(missing, rows, strict=True):
            _store(run, index, dataset, checked(row, dataset.name))
            progress.update()
    return True


def datasets_at_once(run: Run, datasets: Sequence[Dataset]) -> SideBySide:
    """`gradients.vmap`, or what the memory of the devices allows; one where a device does not say how much it has."""
    cfg = run.config.gradients
    if cfg.vmap:
        return SideBySide(min(cfg.vmap, len(datasets)), "gradients.vmap")
    budget = cfg.vmap_bytes or _device_bytes() // SHARE
    if not budget:
        return SideBySide(1, "the device does not tell its memory; gradients.vmap_bytes would allow more")
    samples = [calibration_examples(dataset, cfg.examples, run.config.seed) for dataset in datasets]
    longest = max((example for sample in samples for example in sample), key=lambda example: len(example.tokens))
    return side_by_side(
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


def load_gradients(run: Run) -> list[np.ndarray]:
    """Memory-mapped gradient rows of the mixture, in order.

    Raises:
        ValueError: A row is missing or damaged.
    """
    entries = read_json(run.workdir.gradient_index)["datasets"]
    return [_load(run, name, entries.get(name)) for name in run.names]


def gradient_norms(run: Run) -> list[float]:
    """‖g_t‖ of each dataset of the mixture, over the entries that are kept.

    Raises:
        ValueError: A gradient is missing.
    """
    entries = read_json(run.workdir.gradient_index)["datasets"]
    missing = [name for name in run.names if name not in entries]
    if missing:
        raise ValueError(f"no gradients of {missing} in {run.workdir.gradients}; run --stages=gradients first")
    return [entries[name]["norm"] for name in run.names]


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
        "sha256": vector_sum(row),
    }

    def write() -> None:
        write_array(run.workdir.gradients / name, row)
        write_json(run.workdir.gradient_index, index)

    run.on_first_process(write)


def _load(run: Run, name: str, entry: Mapping[str, Any] | None) -> np.ndarray:
    if entry is None:
        raise ValueError(f"no gradient of dataset {name!r} in {run.workdir.gradients}; run --stages=gradients first")
    path = run.workdir.gradients / entry["file"]
    try:
        row = read_array(path)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} (dataset {name!r}) is missing or damaged: {error}; delete {path.parent}") from None
    if row.shape != (entry["entries"],) or entry.get("sha256", "") not in ("", vector_sum(row)):
        raise ValueError(f"{path} (dataset {name!r}) does not hold the gradient that was written; delete {path.parent}")
    return row
