"""Tells from the names of files which dataset and split they belong to, and which of them are shards of one file.

As the Hugging Face hub has it: `birds_test.jsonl`, `birds/validation.jsonl`, `data/train-00000-of-00005-3f2a.parquet`.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple

TRAIN = ("train", "training")
HELD_OUT = ("validation", "valid", "val", "dev", "eval", "evaluation", "test", "testing")
"""Words for held-out data. A dataset with files of several of them holds out those of the first."""

_WORD = "|".join((*TRAIN, *HELD_OUT))
_SUFFIX = re.compile(rf"(?:(?P<dataset>.*?)[-._ ]+)?(?P<word>{_WORD})", re.IGNORECASE | re.DOTALL)
_PREFIX = re.compile(rf"(?P<word>{_WORD})[-._ ]+(?P<dataset>.+)", re.IGNORECASE | re.DOTALL)
_SHARD = re.compile(r"(?P<stem>.*?)[-._]?(?P<index>\d{5,})-of-(?P<count>\d{5,})(?P<hash>-[0-9a-f]+)?", re.DOTALL)


class FileName(NamedTuple):
    """The parts of a data file's name.

    Attributes:
        file: The path.
        dataset: Name of the dataset; empty where the name is only a split word, or a number in a split's folder.
        word: The split word in lower case; empty without one.
        shards: Of a shard, what its file shares with the others, else None: (path and name up to the number, count, suffix).
        number: Number of the shard.
    """

    file: str
    dataset: str
    word: str
    shards: tuple[str, int, str] | None = None
    number: int = 0


class FileSet(NamedTuple):
    """The files of a dataset, by what they are taken for.

    Attributes:
        train: Training files, in order.
        held_out: Held-out files, in order.
        unused: Held-out files that are neither trained on nor evaluated.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def to_evaluate(self) -> "FileSet":
        """Returns the files of a suite, as the training files: the held-out ones where there are some."""
        if not self.held_out:
            return self
        return FileSet(self.held_out, (), (*self.train, *self.unused))


def parse_name(file: str, folders: Sequence[str] = ()) -> FileName:
    """Reads the name of a file.

    Args:
        file: The path.
        folders: Names of the folders above it that may name its split, the nearest last.

    Examples:
        >>> parse_name("birds_test.jsonl")[1:3]
        ('birds', 'test')
        >>> parse_name("contest.jsonl")[1:3]
        ('contest', '')
        >>> parse_name("train-00002-of-00005.parquet")[1:]
        ('', 'train', ('train', 5, '.parquet'), 2)
        >>> parse_name("train/0001.parquet", folders=["train"])[1:3]
        ('', 'train')
    """
    path = PurePath(file)
    stem, shards, index = path.name.removesuffix(path.suffix), None, 0
    if found := _SHARD.fullmatch(stem):
        stem, index = found["stem"], int(found["index"])
        shards = (file.removesuffix(path.name) + stem, int(found["count"]), path.suffix)
    if named := _SUFFIX.fullmatch(stem) or _PREFIX.fullmatch(stem):
        return FileName(file, named["dataset"] or "", named["word"].lower(), shards, index)
    above = next((folder.lower() for folder in reversed(folders) if is_split_word(folder)), "")
    return FileName(file, "" if above and stem.isdigit() else stem, above, shards, index)


def is_split_word(text: str) -> bool:
    """Returns whether a folder of this name holds one split."""
    return text.lower() in (*TRAIN, *HELD_OUT)


def is_held_out(name: FileName) -> bool:
    """Returns whether the name says that the file is no training data."""
    return name.word in HELD_OUT


def divide(names: Sequence[FileName]) -> FileSet:
    """Splits the files of one dataset: of several words for held-out data, those of the first in `HELD_OUT` are held out.

    Raises:
        ValueError: Shards are missing.
    """
    check_shards(names)
    words = [word for word in HELD_OUT if any(name.word == word for name in names)]
    return FileSet(
        tuple(name.file for name in names if not is_held_out(name)),
        tuple(name.file for name in names if words and name.word == words[0]),
        tuple(name.file for word in words[1:] for name in names if name.word == word),
    )


def check_shards(names: Iterable[FileName]) -> None:
    """Refuses shards that are not all there, each once.

    Raises:
        ValueError: Shards are missing, there twice, or numbered past their count.
    """
    found: dict[tuple[str, int, str], dict[int, str]] = {}
    for name in names:
        if name.shards:
            files = found.setdefault(name.shards, {})
            if name.number in files:
                raise ValueError(f"{files[name.number]} and {name.file} are the same shard; delete one of the two")
            files[name.number] = name.file
    for (start, count, suffix), files in found.items():
        first = 0 if 0 in files or count not in files else 1
        if beyond := next((file for index, file in files.items() if not first <= index < first + count), None):
            raise ValueError(f"{beyond}: its number is past the {count} shards that its name states; rename it")
        if len(files) < count:
            missing = next(index for index in range(first, first + count) if index not in files)
            separator = "-" if start and not start.endswith("/") else ""
            others = f" and {count - len(files) - 1} more" if count - len(files) > 1 else ""
            raise ValueError(
                f"{start}{separator}{missing:05}-of-{count:05}{suffix}: this shard{others} of a dataset is missing; add it, or "
                "list the files that are there in a manifest's file_name"
            )
