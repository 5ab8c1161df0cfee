"""Prepares theta0 in ordinary joint runs, one after the other, each from the export of the previous one.

`merit run`, `merit branch` and `merit export` do so if the config sets `basin.rebuild`; finished stages are skipped.
"""

import copy
import hashlib
import runpy
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from merit_jax.configs.schema.check import check_keys
from merit_jax.launch.wiring import open_run
from merit_jax.launch.wiring.model_path import resolve_settings
from merit_jax.models import compose
from merit_jax.pipeline.stages import run_stages
from merit_jax.workdir.artifacts import is_current, write_json
from merit_jax.workdir.paths import absolute

STAGES = ("mixture", "partition", "train", "merge", "export")
"""Stages of the pipeline that each stage of the basin runs."""


def prepare_theta0(config: ConfigDict, workdir: epath.PathLike, *, overwrite: bool = False) -> ConfigDict:
    """Returns the config with theta0 prepared, if it sets `basin.rebuild`.

    Raises:
        ValueError: As for `check_keys` and `train_basin`.
    """
    if not config.basin.rebuild:
        return config
    check_keys(config)
    prepared = copy.deepcopy(config)
    prepared.model.path = train_basin(config, workdir, overwrite=overwrite)
    return prepared


def train_basin(config: ConfigDict, workdir: epath.PathLike, *, overwrite: bool = False) -> str:
    """Trains the stages of `config.basin` in `workdir/basin/<n>_<name>/`, or resumes them.

    Args:
        config: A run's config; only `basin` is read.
        workdir: The run's directory.
        overwrite: Make artifacts again whose inputs have changed, instead of refusing.

    Returns:
        The folder of the last stage's export.

    Raises:
        ValueError: A file is no config, or a stage was made from other inputs.
    """
    stages = {f"{number}_{Path(file).stem}": _load(file) for number, file in enumerate(config.basin.stages, start=1)}
    root = absolute(workdir) / "basin"
    seed = next(iter(stages.values())).seed
    theta0 = _start(config.basin.start, seed, root, overwrite=overwrite) if config.basin.start else ""
    for name, stage in stages.items():
        stage.model.path = theta0 or stage.model.path
        run = open_run.open_run(stage, root / name, overwrite=overwrite)
        run_stages(run, STAGES)
        theta0 = str(run.workdir.merged_hf)
    return theta0


def _load(file: str) -> ConfigDict:
    """Returns the config of a stage, for joint training."""
    get_config = runpy.run_path(file).get("get_config") if Path(file).is_file() else None
    if get_config is None:
        raise ValueError(f"basin.stages: {file}: expected a Python file that defines get_config(method)")
    return get_config("joint")


def _start(start: str, seed: int, root: epath.Path, *, overwrite: bool) -> str:
    """Writes random weights for a folder's config, and returns their folder."""
    folder, record, like = root / "start", root / "start.json", resolve_settings(start, "basin.start").path
    inputs = {"like": _digests(like), "seed": seed}
    if jax.process_index() == 0 and not (is_current(record, inputs, overwrite=overwrite) and folder.exists()):
        if folder.exists():
            folder.rmtree()
        compose(Path(folder), like=like, seed=seed)
        write_json(record, {"inputs": inputs})
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("start of the basin")
    return str(folder)


def _digests(folder: Path) -> dict[str, Any]:
    """Returns the sha256 of each file of a folder that holds no weights."""
    files = sorted(file for file in folder.glob("*") if file.is_file() and file.suffix != ".safetensors")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
