"""Reuses branches that another method of the same run has already trained."""

import logging
import os
import shutil
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from etils import epath

from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_inputs
from merit_jax.workdir.artifacts import read_inputs
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir, is_remote

log = logging.getLogger("merit_jax")


def reuse_branches(run: Run, others: Sequence[Workdir]) -> bool:
    """Copies finished branches that were made from exactly the inputs of this run's: joint training in a soup, say.

    Files are hard links where the file system has them, so they take no room; nobody writes to those of a finished branch.

    Args:
        run: The run, with its partition.
        others: Workdirs that may have such branches.

    Returns:
        Whether there was one.
    """
    finished: dict[str, epath.Path] = {}
    for other in others:
        for done in sorted((other.root / "branches").glob("*/done.json")):
            if done.parent.name.isdecimal():  # not a copy that was broken off
                finished.setdefault(fingerprint(read_inputs(done)), done.parent)
    wanted = {
        index: fingerprint(branch_inputs(run, branch))
        for index, branch in enumerate(load_partition(run).branches)
        if not run.workdir.branch(index).exists()
    }
    found = {index: finished[key] for index, key in wanted.items() if key in finished}
    for index, source in found.items():
        log.info("branch %d is the same as %s", index, source)
        run.on_first_process(partial(_copy, source, run.workdir.branch(index)))
    return bool(found)


def _copy(source: epath.Path, target: epath.Path) -> None:
    """Copies a finished branch, whole or not at all."""
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if is_remote(source):
            _copy_files(source, temporary)
        else:
            shutil.copytree(Path(source), Path(temporary), copy_function=_link)
        temporary.rename(target)
    except BaseException:
        if temporary.exists():
            temporary.rmtree()
        raise


def _copy_files(source: epath.Path, target: epath.Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            _copy_files(path, target / path.name)
        else:
            path.copy(target / path.name)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
