"""`hf/` and `costs.json`: the pruned model as a folder that other tools load, and its size and speed beside theta0's."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath

from merit_jax.core import sharding
from merit_jax.core.types import Batch, Model, Params
from merit_jax.evaluation.prompts import stop_tokens
from merit_jax.evaluation.throughput import throughput
from merit_jax.merging import model_card
from merit_jax.pipeline.calibration import calibration_batches
from merit_jax.pipeline.pruning.choose_heads import choose_heads, chosen_gates
from merit_jax.pipeline.pruning.pruned_card import pruned_card
from merit_jax.pipeline.pruning.pruned_models import final_leaves, inputs_of, last_model
from merit_jax.pipeline.pruning.pruning_files import files
from merit_jax.pipeline.pruning.score_heads import scored_datasets
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stage import Stage
from merit_jax.pruning.costs import sizes
from merit_jax.workdir.artifact_types import Exported, JsonArtifact, verify_export
from merit_jax.workdir.artifacts import INPUTS, read_json
from merit_jax.workdir.paths import absolute, is_remote, is_there

COMMAND = "merit prune"
"""The command that makes the artifacts, in messages."""


def _export(run: Run) -> Callable[[epath.Path], None]:
    """Returns a function that writes the folder, with its tokenizer and a model card."""
    leaves, kept = final_leaves(run), chosen_gates(run)
    stays = {part: np.asarray(gates, bool) for part, gates in kept.items()}

    def write(folder: epath.Path) -> None:
        run.theta0.export_without_heads(leaves.read, stays, folder, partial(_card, run), stop_tokens(run.tokenizer))

    return write


def _card(run: Run, notes: Sequence[str]) -> dict[str, str]:
    chosen = choose_heads.read(run)
    record = {
        "base": model_card.model_name(run.theta0.origin or run.config.model.path),
        "theta0": run.theta0_fingerprint,
        **{key: chosen[key] for key in ("criterion", "alpha", "removed", "kept")},
        "recovery": run.config.prune.recovery,
        "notes": list(notes),
        "datasets": run.names,
        "versions": model_card.versions(model_card.RUN_PACKAGES),
    }
    return pruned_card(record)


def _folder(run: Run, out: epath.Path | None) -> epath.Path:
    return files(run).exported if out is None else out


def check_out(run: Run, out: epath.Path | None) -> None:
    """Raises ValueError unless the folder to make is absent, empty, or an earlier export of a pruned model.

    A folder with the model that is pruned, or with the workdir, is refused: an export there would delete them.
    """
    folder = _folder(run, out)
    owned = {run.config.model.path: "the model that is pruned", run.workdir.root: "the workdir of the pruning"}
    for path, content in owned.items():
        if path and is_there(absolute(path)) and absolute(path).is_relative_to(folder):
            raise ValueError(f"{folder} holds {content}, which an export there would replace; give another folder")
    if is_there(folder) and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder that is not there yet")
    if is_there(folder) and not _is_of_pruning(folder) and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files; give a folder that is not there yet")


def _is_of_pruning(folder: epath.Path) -> bool:
    """Returns whether a folder has the record of an exported pruned model."""
    path = Exported(folder).path
    record = read_json(path) if is_there(path) else {}
    return isinstance(record, Mapping) and "pruning" in record.get(INPUTS, {})


def export_pruned(run: Run, out: epath.Path | None = None) -> bool:
    """Exports the run's last model without its pruned heads; returns whether it was not there yet.

    Args:
        run: The run that has pruned its theta0.
        out: Folder to make; None: `hf` in the workdir.

    Raises:
        ValueError: The folder holds other files, or another export and the run does not overwrite.
    """
    check_out(run, out)
    folder = _folder(run, out)
    return Stage(
        lambda run: inputs_of(run, last_model(run)),
        _export,
        lambda run: Exported(folder),
        name="export",
        check=lambda run: verify_export(folder),
        command=COMMAND,
    )(run)


def measure_costs(run: Run, out: epath.Path | None = None) -> bool:
    """Compares size and speed of theta0 and of the exported model; returns whether that was not there yet.

    A folder in a bucket is not measured.
    """
    folder = _folder(run, out)
    return Stage(
        lambda run: {**inputs_of(run, last_model(run)), "device": _device()},
        lambda run: _costs(run, folder),
        lambda run: JsonArtifact(files(run).costs),
        name="costs",
        applies=lambda run: not is_remote(folder),
        command=COMMAND,
    )(run)


def _device() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _costs(run: Run, folder: epath.Path) -> dict[str, Any]:
    model, smaller = run.theta0.reopened(folder, run.model)
    shardings = sharding.of_params(run.mesh, smaller.logical_axes, smaller.abstract)
    batch = run.place_batch(next(calibration_batches(run, scored_datasets(run)[0])))
    params = sharding.load(smaller.leaves(), shardings)
    return {
        "before": _of_model(run.model, run.params, batch),
        "after": _of_model(model, params, batch),
        "device": _device(),
        "notes": read_json(folder / "merit.json")["notes"],
    }


def _of_model(model: Model, params: Params, batch: Batch) -> dict[str, Any]:
    """Returns size and speed of a model, as JSON values."""
    read, written = throughput(model, params, batch)
    speed = {"read_tokens_per_second": read, "written_tokens_per_second": written}
    return {**sizes(model, params)._asdict(), **speed}
