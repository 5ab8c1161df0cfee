"""Runs in the tiny world whose mixture has been split, written for other trainers."""

import json
from pathlib import Path

import yaml

from merit_jax.launch.emitting.emit import emit
from merit_jax.pipeline.stages import run_stages
from tests.support import world

STAGES = ("mixture", "partition")


def split(root: Path, method: str = "random2", **changes):
    """A run whose mixture has been split without looking at gradients."""
    run = world.run(root, "run", method, **changes)
    run_stages(run, STAGES)
    return run


def written(run, tool: str, **options) -> Path:
    """The folder of a run's branches for a tool."""
    out = Path(run.workdir.root) / "emitted" / tool
    emit(run, tool, out, **options)
    return out


def settings(folder: Path, branch: int = 0) -> dict:
    """The configuration of a branch."""
    return yaml.safe_load((folder / f"branch-{branch}" / "train.yaml").read_text())


def rows(folder: Path, branch: int) -> dict[str, list[dict]]:
    """File of a dataset -> its rows, of a branch."""
    files = sorted((folder / f"branch-{branch}" / "data").iterdir())
    return {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in files}
