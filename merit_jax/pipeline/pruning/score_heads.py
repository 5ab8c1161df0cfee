"""`heads.npz`: importance and attention entropy of the heads of a run's theta0, summed over each dataset's examples.

In later rounds of pruning, `heads-<mark>.npz`: the same, with the heads closed that are pruned already.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from merit_jax.core.heads import ByHead, HasHeads
from merit_jax.core.progress import bar
from merit_jax.core.types import Dataset
from merit_jax.data.elsewhere import is_elsewhere
from merit_jax.pipeline.calibration import calibration_batches, example_digests
from merit_jax.pipeline.pruning.pruning_files import files
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import GrowingStage
from merit_jax.pruning import HeadScores, HeadSums, head_measure, head_sums, mean_scores
from merit_jax.workdir.artifact_types import ArrayArtifact
from merit_jax.workdir.checksums import fingerprint

log = logging.getLogger("merit_jax")

NAMES, DIGESTS, EXAMPLES = "datasets", "digests", "examples"
"""Arrays with an entry for each dataset: its name, the digest of its examples, and how many of them were read."""
BY_PART = ("importance", "measured", "entropy")
"""Fields of `HeadSums` that have an array for each part: "FIELD_PART", [datasets, layers, ...]."""


def head_scores(run: Run, kept: ByHead) -> HeadScores:
    """Returns the scores of heads over the calibration examples of all datasets, which are measured unless they are there.

    Args:
        run: Its theta0 is measured.
        kept: Part -> 1 for the heads that earlier rounds have kept; the others are closed while the model is measured.

    Raises:
        ValueError: The model has no heads that can be measured, a dataset has no supervised example, or the measurements that
            are there were made from other inputs.
    """
    stage = _stage(kept)
    stage(run)
    found = _sums(stage.read(run), [dataset.name for dataset in scored_datasets(run)], tuple(kept))
    return mean_scores(sum(found[1:], start=found[0]))


def _stage(kept: ByHead) -> GrowingStage:
    mark = _mark(kept)
    return GrowingStage(
        lambda run: _inputs(run, kept),
        lambda run, known: _measure(run, kept, known),
        lambda run: ArrayArtifact(files(run).scores(mark)),
        command="merit prune",
    )


def _inputs(run: Run, kept: ByHead) -> dict[str, Any]:
    return {
        "theta0": run.theta0_fingerprint,
        "text": run.text_inputs,
        "examples": run.config.gradients.examples,
        "parts": list(kept),
        **({"closed": mark} if (mark := _mark(kept)) else {}),
        "dtype": run.compute_dtype,
    }


def _mark(kept: ByHead) -> str:
    """Returns a short name of the heads that are closed; "" for none."""
    closed = {part: np.argwhere(np.asarray(gates) == 0).tolist() for part, gates in kept.items()}
    return fingerprint(closed)[:12] if any(closed.values()) else ""


def scored_datasets(run: Run) -> list[Dataset]:
    """Returns the datasets that are here.

    Raises:
        ValueError: None is.
    """
    here = [dataset for dataset in run.datasets if not is_elsewhere(dataset)]
    if not here:
        raise ValueError(
            "prune: the rows of all datasets are elsewhere, and heads are scored on examples; run this where there are "
            "some, or put the files of a dataset under mixture.path"
        )
    return here


def model_with_heads(run: Run) -> HasHeads:
    """Returns the run's model.

    Raises:
        ValueError: It has no attention heads that can be gated.
    """
    if not isinstance(run.model, HasHeads):
        raise ValueError("prune: this model has no `gated` and `head_entropies`; its heads cannot be scored")
    return run.model


def _measure(run: Run, kept: ByHead, known: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yields the sums of all datasets that are measured, after each one."""
    parts, datasets, digests = tuple(kept), scored_datasets(run), example_digests(run)
    found = _current(known, digests, parts)
    missing = [dataset for dataset in datasets if dataset.name not in found]
    if not missing:
        return
    log.info("scoring attention heads on %d datasets", len(missing))
    model, depends_on = model_with_heads(run), (parts, run.config.loss.chunk)
    measure = run.shared.once("head_measure", depends_on, lambda: head_measure(model, *depends_on))
    with bar(len(missing), "heads", "dataset") as progress:
        for dataset in missing:
            sums = head_sums(measure, run.params, calibration_batches(run, dataset), kept, run.place_batch)
            _check(sums, dataset.name)
            found[dataset.name] = sums
            names = [other.name for other in datasets if other.name in found]
            yield _arrays({name: found[name] for name in names}, digests)
            progress.update()


def _check(sums: HeadSums, name: str) -> None:
    """Raises ValueError for the sums of a dataset that say nothing of the heads."""
    if not sums.examples:
        raise ValueError(
            f"dataset {name!r}: no calibration example has supervised tokens, so that its heads have no score"
        )
    if not all(np.isfinite(part).all() for values in sums[1:] for part in values.values()):
        raise ValueError(
            f"dataset {name!r}: the scores of heads are not finite; does the model give a finite loss on it?"
        )


def _arrays(found: Mapping[str, HeadSums], digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    content = {
        NAMES: np.array(list(found)),
        DIGESTS: np.array([digests[name] for name in found]),
        EXAMPLES: np.array([sums.examples for sums in found.values()]),
    }
    for field in BY_PART:
        for part in next(iter(found.values())).importance:
            content[f"{field}_{part}"] = np.stack([getattr(sums, field)[part] for sums in found.values()])
    return content


def _sums(content: Mapping[str, Any], names: list[str], parts: tuple[str, ...]) -> list[HeadSums]:
    """Returns the sums of the named datasets."""
    places = {name: place for place, name in enumerate(content[NAMES].tolist())}
    return [
        HeadSums(
            content[EXAMPLES][places[name]],
            *({part: content[f"{field}_{part}"][places[name]] for part in parts} for field in BY_PART),
        )
        for name in names
    ]


def _current(
    known: Mapping[str, Any] | None, digests: Mapping[str, str], parts: tuple[str, ...]
) -> dict[str, HeadSums]:
    """Returns the sums that are there, of datasets that have not changed."""
    if known is None:
        return {}
    entries = zip(known[NAMES].tolist(), known[DIGESTS].tolist(), strict=True)
    names = [name for name, digest in entries if digests.get(name) == digest]
    return dict(zip(names, _sums(known, names, parts), strict=True))
