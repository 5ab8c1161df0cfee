"""Finds the files of datasets: of a glob, where a file or set of shards is a dataset, and of a manifest's names."""

import contextlib
import functools
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

from etils import epath

from merit_jax.data.readers import READERS
from merit_jax.data.splits import FileName, FileSet, divide, is_held_out, is_split_word, parse_name
from merit_jax.workdir.paths import is_remote

WILDCARDS = frozenset("*?[")
SHOWN = 3
"""Files that a sentence names; the others are counted."""


def find_datasets(pattern: str, *, suites: bool = False) -> dict[str, FileSet]:
    """Finds the datasets of a glob: name -> files.

    Args:
        pattern: The glob. A file without wildcards in its path is what the caller says it is: it is trained on, whatever its
            name.
        suites: Held-out files may lack training files, and those next to the glob's files are not looked for.

    Raises:
        ValueError: Nothing matches, two files are of one name, shards are missing, or held-out files have no training file.
    """
    root, rest = _root_of(pattern)
    named = _is_file(pattern)
    files = [pattern] if named else _matches(root, rest)
    if not files:
        raise ValueError(_nothing(pattern))
    if named and is_held_out(parse_name(pattern)):
        return {PurePath(pattern).stem: FileSet((pattern,))}
    datasets: dict[str, list[FileName]] = {}
    for file in files:
        name = _name(file, root)
        datasets.setdefault(name.dataset, []).append(name)
    near = functools.cache(lambda folder: {} if suites else _held_out_in(folder, root))
    found = {dataset: _file_set(dataset, names, near, pattern) for dataset, names in datasets.items()}
    if orphans := [dataset for dataset, files in found.items() if not (files.train or suites)]:
        raise ValueError(_without_training(found, orphans))
    return found


def find_files(paths: Iterable[str]) -> list[FileName]:
    """Finds the files that a manifest names, in its order: a file, a folder's files, or what a glob matches.

    A file that is named itself has no split word or shards in the result: it is what the manifest says.

    Raises:
        ValueError: A folder or glob has no file, or a file comes twice.
    """
    names: list[FileName] = []
    for path in paths:
        if _is_folder(path):
            inside = sorted(
                str(file)
                for file in epath.Path(path).iterdir()
                if file.suffix in READERS and not file.name.startswith(".") and file.is_file()
            )
            if not inside:
                raise ValueError(f"{path}: a folder without {', '.join(READERS)} files; name a file or a glob")
            names += [parse_name(file) for file in inside]
        elif WILDCARDS & set(path) and not _is_file(path):
            root, rest = _root_of(path)
            matched = _matches(root, rest)
            if not matched:
                raise ValueError(f"{path}: no file matches; correct the path")
            names += [_name(file, root) for file in matched]
        else:
            names.append(FileName(path, "", ""))
    if twice := next((file for file, count in Counter(name.file for name in names).items() if count > 1), None):
        raise ValueError(f"{twice}: the file is named twice; name it once")
    return names


def listed(files: Sequence[str]) -> str:
    """Returns the first few of some files, by their names where all are in one folder, and how many others there are."""
    one_folder = len({PurePath(file).parent for file in files}) == 1
    shown = ", ".join(PurePath(file).name if one_folder else file for file in files[:SHOWN])
    return f"{shown} and {len(files) - SHOWN} more" if len(files) > SHOWN else shown


def _is_file(path: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        return epath.Path(path).is_file()
    return False


def _is_folder(path: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return epath.Path(path).is_dir()
    return False


def _root_of(pattern: str) -> tuple[epath.Path, str]:
    """Returns the folder above the first wildcard, and the rest of the pattern."""
    if is_remote(pattern):
        head, _, tail = pattern.rpartition("/")
        return epath.Path(head), tail
    parts = PurePath(pattern).parts
    fixed = next((i for i, part in enumerate(parts) if WILDCARDS & set(part)), len(parts) - 1)
    return epath.Path(PurePath(*parts[:fixed])), str(PurePath(*parts[fixed:]))


def _matches(root: epath.Path, pattern: str) -> list[str]:
    """Returns the files that a pattern matches below a folder; none that is hidden."""
    if not is_remote(root):
        found = (os.path.join(root, file) for file in glob.glob(pattern, root_dir=root, recursive=True))
        return sorted(os.path.normpath(file) for file in found if os.path.isfile(file))
    if "**" in pattern:
        raise ValueError(f"{root}/{pattern}: ** is not searched in a bucket; write one * for each folder")
    return sorted(str(file) for file in root.glob(pattern) if file.is_file())


def _nothing(pattern: str) -> str:
    if _is_folder(pattern):
        return f"{pattern}: a folder; give a glob of its files, such as {pattern.rstrip('/')}/*.jsonl, or a manifest"
    return f"{pattern}: no file matches; give a manifest (.json, .yaml) or a glob of {', '.join(READERS)} files"


def _name(file: str, root: epath.Path) -> FileName:
    """Reads a file's name; a name without a dataset gets that of the folder."""
    folders = list(PurePath(os.path.relpath(file, root)).parent.parts)
    name = parse_name(file, folders)
    if name.dataset:
        return name
    if not parse_name(file).word and name.word:
        folders = [folder for folder in folders if not is_split_word(folder)]
    top = PurePath(root if is_remote(root) else os.path.abspath(root)).name
    *above, last = [top, *folders]
    dataset = above[-1] if last.lower() == "data" and above else last
    return name._replace(dataset=dataset or name.word)


def _held_out_in(folder: str, root: epath.Path) -> dict[str, list[FileName]]:
    """Returns dataset -> held-out files of a folder."""
    found: dict[str, list[FileName]] = {}
    for path in sorted(epath.Path(folder).iterdir()):
        name = _name(str(path), root)
        if is_held_out(name):
            found.setdefault(name.dataset, []).append(name)
    return found


def _file_set(
    dataset: str, names: list[FileName], near: Callable[[str], dict[str, list[FileName]]], pattern: str
) -> FileSet:
    """Splits the files of one name; held-out files that the glob leaves out are found next to the training file."""
    training = [name for name in names if not is_held_out(name)]
    _check_one(training, dataset, pattern)
    if training and len(training) == len(names):
        first = epath.Path(training[0].file)
        names = [*names, *(n for n in near(str(first.parent)).get(dataset, ()) if n.file.endswith(first.suffix))]
    for word in sorted({name.word for name in names if is_held_out(name)}):
        _check_one([name for name in names if name.word == word], dataset, pattern)
    return divide(names)


def _check_one(names: Sequence[FileName], dataset: str, pattern: str) -> None:
    """Refuses files of one dataset and split that are neither shards of one file nor numbered in one folder."""
    kinds = [name.shards or (str(PurePath(name.file).parent) if _is_number(name) else name.file) for name in names]
    if other := next((name for name, kind in zip(names, kinds, strict=True) if kind != kinds[0]), None):
        raise ValueError(
            f"{pattern}: {names[0].file} and {other.file} are both named {dataset!r}; rename one, or name the files of each "
            "dataset in a manifest's file_name"
        )


def _is_number(name: FileName) -> bool:
    return bool(name.word) and PurePath(name.file).stem.isdigit()


def _without_training(found: dict[str, FileSet], orphans: Sequence[str]) -> str:
    dataset = orphans[0]
    file = found[dataset].held_out[0]
    path = PurePath(file)
    stem, more = path.name.removesuffix(path.suffix), f" (and {len(orphans) - 1} more such)" if orphans[1:] else ""
    return (
        f"{file}{more}: its name says held-out data ({parse_name(file).word or 'by its folder'}), without a training file "
        f"{dataset}.train{path.suffix} in the glob; add it; or, to train on it, rename it to {stem}.train{path.suffix}, or name "
        "it in a manifest's file_name"
    )
