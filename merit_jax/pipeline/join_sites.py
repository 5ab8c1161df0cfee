"""Joins sites: their gradients become one store, and what their files say of their datasets one record."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from merit_jax.gradients.store import GradientStore, NewRow
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.site_file import SiteFile, check_site_files
from merit_jax.workdir.artifacts import INPUTS, is_current, read_json, write_json

log = logging.getLogger("merit_jax")


def join_sites(run: Run, files: Sequence[SiteFile]) -> None:
    """Takes the gradients of sites into the run's store, and records their datasets in `elsewhere.json`.

    Files of more sites may follow later. The record is written last, so that a killed join is done again.

    Args:
        run: The run, with `mixture.elsewhere`.
        files: What the sites have sent.

    Raises:
        ValueError: The files do not go together, or with what has been joined before.
    """
    if not run.config.mixture.elsewhere:
        raise ValueError(
            "mixture.elsewhere is not set: the datasets of other sites are not here; set it in the config that all sites use, or "
            "give --config.mixture.elsewhere=True here and to the commands that follow"
        )
    check_site_files(run, list(files))
    # the first file, where several have a public dataset
    owner = {name: file for file in reversed(files) for name in file.datasets}
    entries = {name: _entry(file, name) for name, file in owner.items()}
    inputs = {"datasets": {name: file.datasets[name]["digest"] for name, file in owner.items()}}
    inputs["files"] = {file.site: file.digest for file in files}
    _refuse_changes(run, inputs)
    _store(run, files[0].inputs, owner)
    run.on_first_process(lambda: write_json(run.workdir.elsewhere, {INPUTS: inputs, "datasets": entries}))
    log.info("joined %d datasets of %d sites: %s", len(entries), len(files), ", ".join(inputs["files"]))


def _entry(file: SiteFile, name: str) -> dict[str, object]:
    kept = {key: value for key, value in file.datasets[name].items() if key not in ("digest", "sha256")}
    return {**kept, "site": file.site}


def _refuse_changes(run: Run, inputs: dict[str, dict[str, str]]) -> None:
    """Refuses to forget a site or to take another version of its data, unless the run overwrites."""
    path = run.workdir.elsewhere
    if not path.exists() or run.overwrite:
        return
    known = read_json(path)[INPUTS]
    for kind, word in (("files", "the file of site"), ("datasets", "dataset")):
        for name, digest in known[kind].items():
            if inputs[kind].get(name) != digest:
                what = "is not among these" if name not in inputs[kind] else "is another now"
                raise ValueError(
                    f"{path}: {word} {name!r}, which was joined before, {what}; give all sites' files, use another --workdir, or "
                    "--overwrite to join these alone"
                )


def _store(run: Run, inputs: Mapping[str, Any], owner: Mapping[str, SiteFile]) -> None:
    """Adds the gradients that the store lacks.

    Raises:
        ValueError: The store has gradients from other inputs, and the run does not overwrite.
    """
    store = GradientStore(run.workdir.gradients)
    known = store.read()["datasets"] if is_current(store.path, inputs, overwrite=run.overwrite) else {}
    new = [name for name, file in owner.items() if known.get(name, {}).get("sha256") != file.datasets[name]["sha256"]]
    for left, name in zip(range(len(new) - 1, -1, -1), new, strict=True):
        file = owner[name]
        place, entry = list(file.datasets).index(name), file.datasets[name]
        at_once = {"datasets": 1, "reason": f"site {file.site}"}
        row = NewRow(name, entry["digest"], file.rows[place], at_once, left)
        run.on_first_process(partial(store.write, inputs, row))
