"""Lists the datasets of a mixture: a JSON or YAML manifest, or a glob of the datasets' files."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from etils import epath

from merit_jax.core.registry import lookup
from merit_jax.core.text import matches
from merit_jax.data.containment import is_inside
from merit_jax.data.data_files import find_datasets, find_files, listed
from merit_jax.data.formats import FORMATS, ColumnMap
from merit_jax.data.group_by import read_groups
from merit_jax.data.hub_entries import EVAL_SPLIT, REVISION, URL, entry_files, hub_subsets, is_hub_path, subset_files
from merit_jax.data.manifest_parser import load_manifest
from merit_jax.data.rows import OnError, fail
from merit_jax.data.splits import TRAIN, FileSet, check_shards, divide
from merit_jax.workdir.paths import is_remote

REMOTE_KEYS = (URL, "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
OTHER_KEYS = (
    "file_name",
    "formatting",
    "columns",
    "tags",
    "num_samples",
    "split",
    "subset",
    "folder",
    "file_sha1",
    "ranking",
)
OUR_KEYS = ("eval_file_name", "held_out", "image_root", "group_by", REVISION, EVAL_SPLIT)
COLUMNS = ("prompt", "query", "response", "system", "history", "messages", "images", "tools")
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag", "observation_tag", "function_tag")


class Entry(NamedTuple):
    """One dataset of a manifest.

    Attributes:
        name: Unique name.
        files: Paths of the training files, in order.
        held_out_files: Paths of the files of held-out records; empty for none.
        held_out: Held-out rows split off the training file: a count, or a fraction below 1; 0 for none.
        format: A key of `formats.FORMATS`, or None to detect it from the first row.
        layout: Column names, tags, and the folder of the images.
        num_samples: Training rows to sample; 0 for all.
        group_by: Column that holds the name of a row's dataset; empty: the files are this dataset.
        unused_files: Files that their names say are held out, and that are neither trained on nor evaluated.
        origin: "OWNER/NAME@COMMIT" of files of the hub; empty for others.
    """

    name: str
    files: tuple[str, ...]
    held_out_files: tuple[str, ...] = ()
    held_out: int | float = 0
    format: str | None = None
    layout: ColumnMap = ColumnMap()
    num_samples: int = 0
    group_by: str = ""
    unused_files: tuple[str, ...] = ()
    origin: str = ""


def read_manifest(
    path: str, include: Sequence[str] = (), on_error: OnError = fail, *, suites: bool = False
) -> tuple[Entry, ...]:
    """Lists the datasets of a manifest or glob, sorted by name.

    A `.json`, `.yaml` or `.yml` path without `*` or `?` is a manifest: LLaMA-Factory's `dataset_info.json` as it stands,
    whose file names are relative to its folder, with more keys: `eval_file_name` (file of held-out records), `held_out` (rows, or
    fraction of rows, split off the training file), `image_root` (folder of the images; the default is that of the data),
    `group_by` (a column whose values name datasets, which then replace the entry), and for `hf_hub_url` (OWNER/NAME of a dataset
    of the hub, with `subset` and `split`) `hf_revision` and `eval_split`.
    `file_name` and `eval_file_name` are a file, a folder, a glob or a list of these. `hub:OWNER/NAME` is a dataset of the hub,
    each subset of which is a dataset here. Anything else is a glob (see `data_files.find_datasets`): `X.jsonl` or `X.train.jsonl`
    is dataset X, and `X.test.jsonl` next to it its held-out data.

    Args:
        path: Manifest, glob or dataset of the hub.
        include: Names or fnmatch patterns of the datasets to keep; all if empty.
        on_error: Called with the error of every bad line of a file that is read for its `group_by`; the default raises.
        suites: The datasets are suites, to be evaluated: where names say that some files are held out, those are the `files`.

    Returns:
        One entry per dataset.

    Raises:
        ValueError: The path matches nothing, a name occurs twice, an included name is unknown, or an entry is unusable.
    """
    if PurePath(path).suffix in (".json", ".yaml", ".yml") and not set("*?") & set(path):
        makers = _datasets(path, load_manifest(path), on_error, suites)
        return tuple(makers[name]() for name in select(sorted(makers), include, path))
    if is_hub_path(path):
        hub, named = hub_subsets(path)
        names = select(sorted(named), include, path)
        sets = {name: subset_files(hub, named[name], path, suites=suites) for name in names}
        return tuple(Entry(n, f.train, f.held_out, unused_files=f.unused, origin=hub.origin) for n, f in sets.items())
    found = {
        name: files.to_evaluate() if suites else files for name, files in find_datasets(path, suites=suites).items()
    }
    entries = {name: Entry(name, f.train, f.held_out, unused_files=f.unused) for name, f in found.items()}
    return tuple(entries[name] for name in select(sorted(entries), include, path))


def select(names: Sequence[str], include: Sequence[str], where: str) -> tuple[str, ...]:
    """Keeps the names that a pattern of `include` matches (all if it is empty); every pattern must match one."""
    if unknown := [pattern for pattern in include if not any(matches(name, pattern) for name in names)]:
        raise ValueError(f"{where}: no dataset matches {unknown}; known: {', '.join(names)}")
    return tuple(name for name in names if not include or any(matches(name, pattern) for pattern in include))


def taken_for(entry: Entry, use: str = "trained on") -> str:
    """Returns a sentence on what the files of a dataset, those of `Entry.files` for `use`, are taken for."""
    uses = ((use, entry.files), ("held out", entry.held_out_files), ("not used", entry.unused_files))
    return f"{entry.name}: " + "; ".join(f"{use}: {listed(files)}" for use, files in uses if files)


def taken_for_lines(entries: Sequence[Entry], most: int, use: str = "trained on") -> list[str]:
    """Returns `taken_for` of the first `most` datasets, and of all that have files which are not used."""
    shown = [entry for place, entry in enumerate(entries) if place < most or entry.unused_files]
    more = len(entries) - len(shown)
    return [
        *(taken_for(entry, use) for entry in shown),
        *([f"and {more} more datasets without files that are not used"] if more else []),
    ]


def _datasets(path: str, data: Mapping[str, Any], on_error: OnError, suites: bool) -> dict[str, Callable[[], Entry]]:
    """Dataset name -> function that makes its entry. Only entries with `group_by` are made, and their files read, at once."""
    makers: dict[str, Callable[[], Entry]] = {}
    origin: dict[str, str] = {}
    for key, fields in data.items():
        if "group_by" in fields:
            entry = _entry(path, key, fields, suites)
            found = {name: functools.partial(entry._replace, name=name) for name in _groups(entry, path, on_error)}
        else:
            found = {key: functools.partial(_entry, path, key, fields, suites)}
        if twice := sorted(set(found) & set(makers)):
            raise ValueError(
                f"{path}: dataset {twice[0]!r} comes from both entry {origin[twice[0]]!r} and entry {key!r}; rename one"
            )
        makers |= found
        origin |= dict.fromkeys(found, key)
    return makers


def _groups(entry: Entry, path: str, on_error: OnError) -> list[str]:
    names = sorted(read_groups(entry.files, entry.group_by, on_error))
    if entry.held_out_files:
        held_out = read_groups(entry.held_out_files, entry.group_by, on_error)
        if unknown := sorted(set(held_out) - set(names)):
            raise ValueError(
                f"{path}: {listed(entry.held_out_files)} holds out rows of {unknown[0]!r}, of which {listed(entry.files)} has "
                f"none; mend the {entry.group_by!r} column of one of the two"
            )
    return names


def _entry(path: str, name: str, data: Mapping[str, Any], suites: bool) -> Entry:
    where = f"{path}: dataset {name!r}"
    _check_keys(data, where)
    columns, tags = data.get("columns") or {}, data.get("tags") or {}
    _check_names(columns, COLUMNS, f"{where}: columns", "only conversations of text and images are read")
    _check_names(tags, TAGS, f"{where}: tags", "")
    format_name = data.get("formatting")
    if format_name is not None:
        if not isinstance(format_name, str):
            raise ValueError(f"{where}: formatting is {format_name!r:.80}; expected one of {', '.join(FORMATS)}")
        lookup(FORMATS, format_name, f"formatting in {where}:")
    of_hub = "file_name" not in data
    files, origin = entry_files(data, where, suites=suites) if of_hub else (_files(path, data, where, suites), "")
    root = data.get("image_root")
    group_by = data.get("group_by", "")
    if not isinstance(group_by, str) or ("group_by" in data and not group_by):
        raise ValueError(f"{where}: group_by is {group_by!r:.80}; expected the name of a column")
    return Entry(
        name,
        files.train,
        files.held_out,
        held_out=_number(data, "held_out", where),
        format=format_name,
        layout=ColumnMap(dict(columns), dict(tags), _path(path, root, where) if root is not None else ""),
        num_samples=int(_number(data, "num_samples", where)),
        group_by=group_by,
        unused_files=files.unused,
        origin=origin,
    )


def _files(path: str, data: Mapping[str, Any], where: str, suites: bool) -> FileSet:
    """Finds the files of an entry; held-out files in its folders and globs are never trained on."""
    try:
        found = divide(find_files(_paths(path, data["file_name"], where)))
        if suites and not (data.get("held_out") or data.get("eval_file_name")):
            return found.to_evaluate()
        if not found.train:
            raise ValueError(
                f"file_name names held-out files alone ({listed(found.held_out)}); to train on a file, name the file itself"
            )
        if data.get("held_out"):
            return FileSet(found.train, (), (*found.held_out, *found.unused))
        if not data.get("eval_file_name"):
            return found
        names = find_files(_paths(path, data["eval_file_name"], where))
        held_out = [name for name in names if name.word not in TRAIN]
        if not held_out:
            raise ValueError(f"eval_file_name names training files alone ({listed([name.file for name in names])})")
        unused = [file for file in (*found.held_out, *found.unused) if file not in {name.file for name in held_out}]
        check_shards(held_out)
        return FileSet(found.train, tuple(name.file for name in held_out), tuple(unused))
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None


def _paths(manifest: str, names: Any, where: str) -> list[str]:
    if isinstance(names, list) and not names:
        raise ValueError(f"{where}: an empty list of files; name one")
    return [_path(manifest, name, where) for name in (names if isinstance(names, list) else [names])]


def _check_keys(data: Mapping[str, Any], where: str) -> None:
    if "file_name" not in data and URL not in data:
        remote = [f"{key}={data[key]!r:.80}" for key in REMOTE_KEYS if key in data]
        raise ValueError(
            f"{where}: no file_name{' but ' + ', '.join(remote) if remote else ''}; only hf_hub_url is downloaded here: set it, "
            "or download the data and set file_name to the .jsonl, .json or .parquet file"
        )
    if unknown := sorted(set(data) - {*REMOTE_KEYS, *OTHER_KEYS, *OUR_KEYS}, key=str):
        raise ValueError(f"{where}: unknown keys {unknown}; known: {', '.join((*OTHER_KEYS, *OUR_KEYS))}")
    if data.get("ranking"):
        raise ValueError(f"{where}: preference pairs (ranking: true) are not instruction data; leave the dataset out")
    if "file_name" in data and (hub := [key for key in (REVISION, EVAL_SPLIT) if data.get(key)]):
        raise ValueError(
            f"{where}: {hub[0]} is of a dataset of the hub, and file_name names a file; remove one of the two"
        )
    if "file_name" not in data and data.get("eval_file_name"):
        raise ValueError(
            f"{where}: eval_file_name goes with file_name; of a dataset of the hub, name a split in {EVAL_SPLIT}"
        )
    if "file_name" in data and data.get("split", "train") != "train":
        raise ValueError(
            f"{where}: a file has one split, 'train', got {data['split']!r:.80}; name that split's file in file_name"
        )
    for key in ("eval_file_name", EVAL_SPLIT):
        if data.get(key) and data.get("held_out"):
            raise ValueError(f"{where}: both {key} and held_out are set; keep one")


def _check_names(given: Any, known: Sequence[str], where: str, reason: str) -> None:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ValueError(f"{where}: expected an object of strings, got {given!r:.80}")
    if unknown := sorted(set(given) - set(known), key=str):
        raise ValueError(
            f"{where}: cannot use {unknown}{' (' + reason + ')' if reason else ''}; known: {', '.join(known)}"
        )


def _path(manifest: str, file_name: Any, where: str) -> str:
    if not isinstance(file_name, str) or "\0" in file_name:
        raise ValueError(f"{where}: names of files and folders must be strings, got {file_name!r:.80}")
    if ".." in PurePath(file_name).parts:
        raise ValueError(f"{where}: {file_name!r} leaves the manifest's folder; move it below or give an absolute path")
    found, folder = epath.Path(manifest).parent / file_name, str(epath.Path(manifest).parent)
    if PurePath(file_name).is_absolute() or is_remote(manifest) or is_remote(file_name):
        return str(found)
    if (real := os.path.realpath(found)) != os.path.realpath(folder) and not is_inside(real, folder):
        raise ValueError(
            f"{where}: {file_name!r} is a link to {real}, outside the manifest's folder; give that path instead"
        )
    return str(found)


def _number(data: Mapping[str, Any], key: str, where: str) -> int | float:
    value = data.get(key) or 0
    whole = isinstance(value, int) and not isinstance(value, bool)
    fraction = key == "held_out" and isinstance(value, float) and value < 1
    if not (whole or fraction) or value < 0:
        raise ValueError(
            f"{where}: {key} is {value!r:.80}; expected a count{', or a fraction below 1' if key == 'held_out' else ''}"
        )
    return value
