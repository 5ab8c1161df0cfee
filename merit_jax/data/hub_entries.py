"""Datasets of the Hugging Face hub as entries of a mixture: `hub:OWNER/NAME`, and `hf_hub_url` in a manifest."""

from collections.abc import Mapping, Sequence
from typing import Any

from merit_jax.core.hub import PREFIX, HubName, parse_hub_name
from merit_jax.data.hub_files import HubFiles, fetched, list_hub_files, splits_of, subsets
from merit_jax.data.splits import HELD_OUT, TRAIN, FileSet

URL, REVISION, EVAL_SPLIT = "hf_hub_url", "hf_revision", "eval_split"
"""Keys of a manifest's entry: the dataset, its branch, tag or commit, and the split that is held out."""


def is_hub_path(path: str) -> bool:
    """Returns whether `mixture.path` names a dataset of the hub."""
    return path.startswith(PREFIX)


def named_dataset(path: str, where: str) -> HubName:
    """Reads "hub:OWNER/NAME" or "hub:OWNER/NAME@REVISION".

    Raises:
        ValueError: It is neither.
    """
    found = parse_hub_name(path, "dataset")
    if found is None:
        raise ValueError(f"{where}: {path!r:.200}; expected OWNER/NAME or OWNER/NAME@REVISION of the hub")
    return found


def hub_subsets(path: str) -> tuple[HubFiles, dict[str, str]]:
    """Returns the files of the dataset that a path names, and name of a dataset of the mixture -> subset.

    Each subset is a dataset; one that is alone is called as the hub's dataset is.

    Raises:
        ValueError: The dataset cannot be had.
    """
    wanted = named_dataset(path, "mixture.path")
    files = list_hub_files(wanted, path)
    found = subsets(files, path)
    if len(found) == 1:
        return files, {wanted.name.rpartition("/")[2]: found[0]}
    return files, {subset: subset for subset in found}


def subset_files(files: HubFiles, subset: str, where: str, *, suites: bool) -> FileSet:
    """Returns the files of a subset by what they are taken for, as those of a glob are: training and held-out splits.

    Raises:
        ValueError: It has no training split, or a file cannot be had.
    """
    return _file_set(files, splits_of(files, subset, where), "train", "", where, suites=suites)


def entry_files(data: Mapping[str, Any], where: str, *, suites: bool) -> tuple[FileSet, str]:
    """Returns the files of a manifest's entry with `hf_hub_url`, and their origin.

    Raises:
        ValueError: The dataset, its subset or a split cannot be had.
    """
    text = {key: data.get(key) or "" for key in (URL, REVISION, EVAL_SPLIT, "subset", "split", "folder")}
    for key, value in text.items():
        if not isinstance(value, str):
            raise ValueError(f"{where}: {key} is {value!r:.80}; expected text")
    wanted = named_dataset(text[URL], f"{where}: {URL}")
    if text[REVISION]:
        if wanted.revision:
            raise ValueError(f"{where}: both {URL} and {REVISION} name a revision; keep one")
        wanted = named_dataset(f"{wanted.name}@{text[REVISION]}", f"{where}: {REVISION}")
    files = list_hub_files(wanted, where)
    known = splits_of(files, text["subset"], where, text["folder"])
    held_out = text[EVAL_SPLIT]
    found = _file_set(
        files, known, text["split"] or "train", held_out, where, suites=suites, split_off=bool(data.get("held_out"))
    )
    return found, files.origin


def _file_set(
    files: HubFiles,
    known: Mapping[str, Sequence[str]],
    split: str,
    held_out: str,
    where: str,
    *,
    suites: bool,
    split_off: bool = False,
) -> FileSet:
    """Takes one split to train on and one to hold out: the one that is named, else the first that is called so."""
    others = {name: names for name, names in known.items() if name != split and name.lower() not in TRAIN}
    found = next((name for word in HELD_OUT for name in others if name.lower() == word), "")
    chosen = held_out or ("" if split_off else found)
    for name in (*([] if suites and chosen else [split]), *([chosen] if chosen else [])):
        if name not in known:
            raise ValueError(f"{where}: {files.origin} has no split {name!r}; known: {', '.join(sorted(known))}")
    if suites:
        return FileSet(fetched(files, known[chosen or split], where))
    train = fetched(files, known[split], where)
    unused = tuple(
        str(files.folder / n) for name in others if name != chosen and name.lower() in HELD_OUT for n in known[name]
    )
    return FileSet(train, fetched(files, known[chosen], where) if chosen else (), unused)
