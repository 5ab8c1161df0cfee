"""Writes the branches of a partition for another trainer: data, its list of datasets, its configuration, and a README."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from merit_jax.core.registry import lookup
from merit_jax.data.group_by import forget
from merit_jax.launch.emitting import EMITTERS
from merit_jax.launch.emitting.branch_rows import branch_data, manifest_entries
from merit_jax.launch.emitting.folder import whole_folder
from merit_jax.launch.emitting.interface import BranchData, Emitter, Settings
from merit_jax.launch.emitting.readme import readme
from merit_jax.launch.emitting.settings import branch_settings
from merit_jax.partition import Partition
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.workdir.paths import absolute, is_remote

log = logging.getLogger("merit_jax")


def places(tools: Sequence[str], workdir: str, out: str | None) -> dict[str, Path]:
    """Returns the folder of each tool's files.

    Args:
        tools: Keys of `EMITTERS`.
        workdir: The run's directory.
        out: The folder of `--out`, for one tool; None: `emitted/<tool>` of the workdir.

    Raises:
        ValueError: A tool is unknown or named twice, there is a folder for none or several, or it is remote.
    """
    for tool in tools:
        lookup(EMITTERS, tool, "--emit")
    if len(set(tools)) < len(tools):
        raise ValueError(f"--emit={','.join(tools)} names a tool twice; name it once")
    if out is not None and len(tools) != 1:
        raise ValueError(
            f"--out={out} is the folder of one tool's files, and --emit names {len(tools)}; name one, or leave --out out"
        )
    folders = {tool: absolute(out if out is not None else f"{workdir}/emitted/{tool}") for tool in tools}
    for folder in folders.values():
        if is_remote(folder):
            raise ValueError(f"{folder}: other tools read local files; give a local folder with --out")
    return {tool: Path(folder) for tool, folder in folders.items()}


def emit(run: Run, tool: str, out: Path, *, overwrite: bool = False) -> None:
    """Writes `branch-<k>/` for each branch, `partition.json` and `README.md`, whole or not at all.

    Args:
        run: A run whose mixture has been split.
        tool: A key of `EMITTERS`.
        out: The folder.
        overwrite: Write it again if it holds others of this command.

    Raises:
        ValueError: The tool cannot say a key of the config or take a dataset, which is named, or the folder is in use.
    """
    emitter, partition = EMITTERS[tool], load_partition(run)
    about = {"tool": tool, "checked": emitter.checked, "branches": len(partition.branches)}
    try:
        with whole_folder(out, about, overwrite=overwrite) as made:
            notes, base = _write_branches(run, tool, partition, made)
            (made / "partition.json").write_text(json.dumps(partition.to_dict(), indent=2) + "\n")
            text = readme(emitter, partition, run.config, base, notes)
            (made / "README.md").write_text(text, encoding="utf-8")
    finally:
        forget()


def _write_branches(run: Run, tool: str, partition: Partition, folder: Path) -> tuple[list[str], str]:
    """Writes every branch; returns what the tool does differently, and theta0's folder."""
    emitter, entries, notes, base = EMITTERS[tool], manifest_entries(run), [], ""
    for k, branch in enumerate(partition.branches):
        settings, data = branch_settings(run, k, branch), branch_data(run, branch, entries)
        check_sayable(emitter, settings, data, k, tool)
        write_branch(emitter, settings, data, folder / f"branch-{k}")
        log.info("%s: branch %d: %d rows of %d datasets", emitter.name, k, data.rows, len(data.files))
        notes += list(emitter.notes(settings, data))
        base = settings.model
    return notes, base


def check_sayable(emitter: Emitter, settings: Settings, data: BranchData, k: int, tool: str) -> None:
    """Checks that a tool can take a branch.

    Raises:
        ValueError: It cannot; the first reason is given, and the number of the others.
    """
    if not data.rows:
        raise ValueError(f"branch {k} has no rows; lower partition.groups, or add examples")
    if problems := list(emitter.problems(settings, data)):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(f"--emit={tool}: branch {k}: {problems[0]}{more}")


def write_branch(emitter: Emitter, settings: Settings, data: BranchData, folder: Path) -> None:
    """Writes the data files of a branch and the tool's own files into a new folder."""
    data = emitter.arranged(data)
    (folder / "data").mkdir(parents=True)
    for file in data.files:
        with (folder / file.path).open("w", encoding="utf-8") as stream:
            for record in file.records:
                stream.write(json.dumps(emitter.row(file, record, data), ensure_ascii=False) + "\n")
    for name, text in emitter.files(settings, data).items():
        (folder / name).write_text(text, encoding="utf-8")
