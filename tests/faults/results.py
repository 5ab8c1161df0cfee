"""What a run has come to, bit by bit."""

import hashlib
import json
from pathlib import Path

import numpy as np

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.workdir.artifacts import read_arrays
from merit_jax.workdir.paths import Workdir


def results(path: Path) -> dict[str, str]:
    """Name of each result -> sha256 of its bits: gradients, similarities, branches, merged parameters, the exported folder.

    Whatever cannot be read has the text of the error in place of the sha256.
    """
    workdir = Workdir.at(path)
    found = {}
    for file in sorted((path / "gradients").glob("*.npy")):
        found[f"gradients/{file.name}"] = _sum(lambda file=file: [np.load(file)])
    found["conflict"] = _sum(lambda: [array for name, array in sorted(read_arrays(workdir.conflict).items())])
    plan = json.loads(workdir.partition.read_text())["branches"] if workdir.partition.exists() else []
    found["partition"] = hashlib.sha256(json.dumps(plan).encode()).hexdigest()
    for k in range(len(plan)):
        found[f"branch {k}"] = _sum(lambda k=k: _leaves(params_directory(workdir.branch(k) / "checkpoints")))
        found[f"tokens {k}"] = _sum(lambda k=k: [np.array(json.loads(workdir.branch_done(k).read_text())["tokens"])])
    found["merged"] = _sum(lambda: _leaves(workdir.merged_params))
    found["exported"] = _sum(lambda: [np.frombuffer((path / "merged/hf/model.safetensors").read_bytes(), np.uint8)])
    return found


def _leaves(directory) -> list[np.ndarray]:
    leaves = OrbaxLeaves(directory)
    return [leaves.read(name) for name in leaves.paths()]


def _sum(read) -> str:
    digest = hashlib.sha256()
    try:
        for array in read():
            digest.update(np.ascontiguousarray(array).tobytes())
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error!s:.100}"
    return digest.hexdigest()
