"""Reads a mixture: every dataset of a manifest is read, checked, sampled and tokenised."""

import hashlib
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from merit_jax.core.seeds import fold
from merit_jax.core.types import Dataset, Example, ReadReport, Record
from merit_jax.data.chat_template import encode, images_of, tokenizer_digest
from merit_jax.data.formats import ColumnMap, detect, to_record
from merit_jax.data.group_by import forget, group_digest, read_groups
from merit_jax.data.images import unpack
from merit_jax.data.manifest import Entry, read_manifest
from merit_jax.data.readers import OnError, Row, fail, file_digest, read_rows
from merit_jax.data.token_cache import as_table, is_saved, load_table, save_table
from merit_jax.data.token_ids import check_ids
from merit_jax.workdir.paths import absolute

CACHE_VERSION = "3"


class Limits(NamedTuple):
    """Limits on what is read of each dataset.

    Attributes:
        max_length: Tokens per example; the rest is truncated.
        max_train: Training rows, sampled by the seed and the dataset's name; 0 for all.
        max_held_out: The same for held-out rows.
    """

    max_length: int
    max_train: int = 0
    max_held_out: int = 0


def load_mixture(
    path: str,
    tokenizer: Any,
    *,
    include: Sequence[str] = (),
    max_length: int,
    max_train: int = 0,
    max_held_out: int = 0,
    seed: int,
    cache_dir: epath.PathLike | None = None,
) -> tuple[Dataset, ...]:
    """Reads the datasets of a mixture.

    Args:
        path: Manifest or glob (see `manifest.read_manifest`).
        tokenizer: A `chat_template.Tokenizer`.
        include: Names or fnmatch patterns of the datasets to keep; all if empty.
        max_length: Tokens per example; the rest is truncated.
        max_train: Training rows per dataset, sampled by `seed` and the dataset's name; 0 for all.
        max_held_out: The same for held-out rows.
        seed: The run's seed.
        cache_dir: Folder that keeps tokenised datasets between runs, and images that dataset files embed; None for none.

    Returns:
        The datasets, sorted by name.

    Raises:
        ValueError: The manifest or a record is bad.
    """
    limits = Limits(max_length, max_train, max_held_out)
    entries = sorted(read_manifest(path, include), key=lambda entry: entry.file)
    try:
        datasets = [read_dataset(entry, tokenizer, limits, seed=seed, cache_dir=cache_dir) for entry in entries]
    finally:
        if any(entry.group_by for entry in entries):
            forget()
    return tuple(sorted(datasets, key=lambda dataset: dataset.name))


def read_dataset(
    entry: Entry,
    tokenizer: Any,
    limits: Limits,
    *,
    seed: int,
    cache_dir: epath.PathLike | None = None,
    on_error: OnError = fail,
    keep: Callable[[Record], bool] = lambda record: True,
) -> Dataset:
    """Reads one dataset.

    Args:
        entry: Its entry in the manifest.
        tokenizer: A `chat_template.Tokenizer`.
        limits: How much to read.
        seed: The run's seed.
        cache_dir: Folder of the token cache, or None. It is used with the default `on_error` only.
        on_error: Called with the error of every bad record, which is then left out; the default raises.
        keep: Returns whether a record is used; called once for each.

    Returns:
        The dataset. Held-out records have been checked to encode, and stay records.
    """
    digest, folder = entry_digest(entry), None
    if cache_dir is not None and on_error is fail:
        folder = _cache_folder(cache_dir, entry, digest, tokenizer_digest(tokenizer), limits, seed)
    if folder is not None and is_saved(folder):
        table, held_out = load_table(folder), _read_records(entry, limits, seed, on_error, cache_dir, train=False)[1]
    else:
        train, held_out = _read_records(entry, limits, seed, on_error, cache_dir)
        encoded = list(_encoded(tokenizer, filter(keep, train), limits.max_length, on_error))
        table = as_table([example for _, example, _ in encoded], truncated=sum(truncated for *_, truncated in encoded))
        held_out = [record for record, *_ in _encoded(tokenizer, filter(keep, held_out), limits.max_length, on_error)]
        if folder is not None:
            save_table(table, folder)
    check_ids(tokenizer, table.tokens, f"dataset {entry.name!r}")
    tokens = int(table.supervised_counts.sum())
    report = ReadReport(_files(entry), digest, len(table), int(table.truncated), tokens, len(table.tokens))
    return Dataset(entry.name, table, tuple(held_out), report)


def _read_records(
    entry: Entry, limits: Limits, seed: int, on_error: OnError, cache_dir: epath.PathLike | None, *, train: bool = True
) -> tuple[list[Record], list[Record]]:
    """Reads, splits and samples the records; without `train`, the training file only where a split needs it."""
    records = read_entry(entry, on_error, cache_dir=cache_dir) if train or entry.held_out else []
    apart = entry._replace(file=entry.held_out_file or "")
    held_out = read_entry(apart, on_error, cache_dir=cache_dir) if entry.held_out_file else []
    if entry.held_out:
        records, held_out = _split(entry, records, seed)
    if entry.num_samples > len(records) > 0:
        raise ValueError(
            f"dataset {entry.name!r}: num_samples is {entry.num_samples}, {entry.file} has {len(records)} training rows"
        )
    for limit, purpose in ((entry.num_samples, "num_samples"), (limits.max_train, "max_train")):
        records = sample(records, limit, fold(seed, purpose, entry.name))
    return records, sample(held_out, limits.max_held_out, fold(seed, "max_held_out", entry.name))


def read_entry(entry: Entry, on_error: OnError = fail, *, cache_dir: epath.PathLike | None = None) -> list[Record]:
    """Reads the records of an entry's file, as the entry says; arguments as for `read_records`.

    Lines without a group belong to no dataset; `read_manifest` reports them.
    """
    rows = None
    if entry.group_by:
        rows = read_groups(entry.file, entry.group_by, lambda _: None).get(entry.name, ())
    return read_records(entry.file, entry.format, entry.layout, on_error, rows=rows, cache_dir=cache_dir)


def read_records(
    file: str,
    format_name: str | None = None,
    layout: ColumnMap = ColumnMap(),
    on_error: OnError = fail,
    *,
    rows: Iterable[tuple[str, Row]] | None = None,
    cache_dir: epath.PathLike | None = None,
) -> list[Record]:
    """Reads the records of one file.

    Args:
        file: Path (.jsonl, .json, .parquet).
        format_name: A key of `formats.FORMATS`; None: detected from the first row.
        layout: Columns and tags that differ from the format's own.
        on_error: Called with the error of every bad record, which is then left out; the default raises.
        rows: Those of the file's rows to read; None: all.
        cache_dir: Folder in whose `images/` embedded images are written, so that records name files; None: they stay in memory.
    """
    layout = layout._replace(image_root=layout.image_root or str(epath.Path(file).parent))
    records = []
    for where, row in read_rows(file, on_error) if rows is None else rows:
        try:
            format_name = format_name or detect(row, where, layout)
            record = to_record(format_name, row, where, layout)
        except ValueError as error:
            on_error(error)
            continue
        if cache_dir is not None and images_of(record.messages):
            record = unpack(record, absolute(cache_dir) / "images")
        records.append(record)
    return records


def _split(entry: Entry, records: Sequence[Record], seed: int) -> tuple[list[Record], list[Record]]:
    """Splits held-out records off: (training, held out), each in file order."""
    count = round(entry.held_out * len(records)) if isinstance(entry.held_out, float) else entry.held_out
    if not 0 < count < len(records):
        raise ValueError(
            f"dataset {entry.name!r}: held_out = {entry.held_out} takes {count} of the {len(records)} rows of "
            f"{entry.file}; at least one row must be held out and one left to train on"
        )
    order = np.random.default_rng(fold(seed, "held_out", entry.name)).permutation(len(records))
    return [records[i] for i in np.sort(order[count:])], [records[i] for i in np.sort(order[:count])]


def sample(records: list[Record], limit: int, seed: int) -> list[Record]:
    """Samples at most `limit` records (0: all), in file order; a larger limit keeps those of a smaller one."""
    if not 0 < limit < len(records):
        return records
    return [records[i] for i in np.sort(np.random.default_rng(seed).permutation(len(records))[:limit])]


def _encoded(
    tokenizer: Any, records: Iterable[Record], max_length: int, on_error: OnError
) -> Iterator[tuple[Record, Example, bool]]:
    """Yields each record that encodes, its example, and whether that was truncated."""
    for record in records:
        try:
            example, truncated = encode(tokenizer, record.messages, max_length, tools=record.tools, where=record.where)
        except ValueError as error:
            on_error(error)
            continue
        yield record, example, truncated


def _files(entry: Entry) -> tuple[str, ...]:
    return (entry.file, *((entry.held_out_file,) if entry.held_out_file else ()))


def entry_digest(entry: Entry) -> str:
    """Returns a sha256, in hex, over the bytes of an entry's files and the manifest's options for reading them.

    It does not depend on the folder of the files, only on the path from there to the images.
    """
    columns, tags, root = entry.layout
    images = posixpath.relpath(root, posixpath.dirname(entry.file) or ".") if root else "."
    options = (entry.format, sorted(columns.items()), sorted(tags.items()), images, entry.held_out, entry.num_samples)
    group = (entry.group_by, entry.name) if entry.group_by else None
    digests = [group_digest(file) if group else file_digest(file) for file in _files(entry)]
    return hashlib.sha256(repr((digests, options, group)).encode()).hexdigest()


def _cache_folder(
    cache_dir: epath.PathLike, entry: Entry, digest: str, tokenizer: str, limits: Limits, seed: int
) -> epath.Path:
    """Names the cache folder after everything that the tokens, and the paths of images, depend on."""
    place = str(absolute(epath.Path(entry.file).parent))
    key = repr((CACHE_VERSION, entry.name, place, digest, tokenizer, limits, seed))
    return epath.Path(cache_dir) / hashlib.sha256(key.encode()).hexdigest()[:32]
