"""Finds the data files of a dataset of the Hugging Face hub: those of a subset, by its splits, read from the hub's cache.

The hub's own rules say which files they are (`configs` in the dataset's README, or the names of files and folders); `datasets`
applies them to the list of names alone. The files are then read like any others.
"""

import functools
import glob
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from merit_jax.core.hub import CARD, HubName, listed_files, snapshot
from merit_jax.data.readers import READERS

log = logging.getLogger("merit_jax")

OFFLINE = "HF_DATASETS_OFFLINE"
"""Environment variable that keeps datasets, alone, from the network."""


class HubFiles(NamedTuple):
    """The files of a commit of a dataset, some of which may not be in the cache yet.

    Attributes:
        wanted: The dataset, at the commit.
        folder: Folder of the commit in the cache.
        names: Names of its files.
    """

    wanted: HubName
    folder: Path
    names: tuple[str, ...]

    @property
    def origin(self) -> str:
        """The dataset and its commit: "OWNER/NAME@COMMIT"."""
        return str(self.wanted)


def list_hub_files(wanted: HubName, where: str) -> HubFiles:
    """Lists the files of a dataset, by the cache or else the hub.

    Raises:
        ValueError: It is not in the cache and cannot be downloaded.
    """
    found = snapshot(wanted, where, [CARD], offline=is_offline())
    commit = wanted._replace(revision=found.folder.name)
    names = listed_files(wanted, commit.revision, offline=is_offline())
    if names is None:
        names = [str(file.relative_to(found.folder)) for file in found.folder.rglob("*") if file.is_file()]
        log.warning(
            "%s: the hub's cache has no list of the files of %s, and the hub cannot be asked for it: the %d files in %s are "
            "taken for all of them",
            *(where, commit, len(names), found.folder),
        )
    return HubFiles(commit, found.folder, tuple(sorted(names)))


def is_offline() -> bool:
    """Returns whether the environment keeps datasets from the network."""
    return os.environ.get(OFFLINE, "").strip().upper() in ("1", "ON", "YES", "TRUE")


def subsets(files: HubFiles, where: str) -> list[str]:
    """Returns the names of a dataset's subsets, which the hub calls configurations."""
    return sorted(_resolved(files, where))


def splits_of(files: HubFiles, subset: str, where: str, folder: str = "") -> Mapping[str, tuple[str, ...]]:
    """Returns split -> names of the files of a subset.

    Args:
        files: The files.
        subset: Its name; empty: the only one, or the one that the dataset's README has as its default.
        where: The setting that asks for it, for error messages.
        folder: Folder of the data inside the dataset; empty: all.

    Raises:
        ValueError: There is no such subset, or several and none is named.
    """
    known = _resolved(files, where, folder)
    if subset in known:
        return known[subset]
    chosen = known.get("default") or (next(iter(known.values())) if len(known) == 1 else None)
    if subset or chosen is None:
        said = f"has no subset {subset!r}" if subset else "has several subsets, and `subset` names none"
        raise ValueError(f"{where}: {files.origin} {said}; known: {', '.join(sorted(known))}")
    return chosen


def fetched(files: HubFiles, names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns the paths of some of the files, which are downloaded where the cache lacks them.

    Raises:
        ValueError: One cannot be downloaded, or is of a type that is not read.
    """
    for name in names:
        if Path(name).suffix not in READERS:
            raise ValueError(
                f"{where}: {files.origin} has its data in {name}; {', '.join(READERS)} are read: convert it, and name the "
                "file in file_name"
            )

    def missing(folder: Path) -> str:
        return next((name for name in names if not (folder / name).is_file()), "")

    if missing(files.folder):
        snapshot(files.wanted, where, list(map(glob.escape, names)), missing=missing, offline=is_offline())
    return tuple(str(files.folder / name) for name in names)


def _resolved(files: HubFiles, where: str, folder: str = "") -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    try:
        return _resolve(files, folder)
    except ImportError as error:
        raise ValueError(
            f"{where}: the files of a dataset of the hub are found by `datasets`; pip install 'merit-jax[hub]'"
        ) from error
    except Exception as error:  # `datasets` refuses a dataset in any way
        said = str(error).replace(tempfile.gettempdir(), "").strip().partition("\n")[0]
        raise ValueError(
            f"{where}: `datasets` finds no data files in {files.origin} ({type(error).__name__}: {said:.300}); download it, and "
            "name its files in file_name"
        ) from error


@functools.lru_cache(maxsize=64)
def _resolve(files: HubFiles, folder: str) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Returns subset -> split -> names, as `datasets` sees a folder of empty files with these names and the README."""
    from datasets import get_dataset_config_names, load_dataset_builder

    with tempfile.TemporaryDirectory() as root:
        home, cache = Path(root, "data"), str(Path(root, "cache"))
        for name in files.names:
            if not name.endswith(".py") and not name.startswith(".") and ".." not in Path(name).parts:
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                (home / name).touch()
        if (files.folder / CARD).is_file():
            (home / CARD).write_bytes((files.folder / CARD).read_bytes())
        given = {"data_dir": folder} if folder else {}
        found = {}
        for subset in get_dataset_config_names(str(home), **given):
            builder = load_dataset_builder(str(home), name=subset, cache_dir=cache, **given)
            data = builder.config.data_files or {}
            found[subset] = {
                str(split): tuple(os.path.relpath(str(file), home) for file in part) for split, part in data.items()
            }
        return found
