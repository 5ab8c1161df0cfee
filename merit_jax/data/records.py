"""Reads the records of one dataset, as its entry in the manifest says; splits and samples them."""

import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from etils import epath

from merit_jax.core.seeds import fold
from merit_jax.core.types import Record
from merit_jax.data.column_map import check_columns
from merit_jax.data.containers import container_hint
from merit_jax.data.data_files import listed
from merit_jax.data.formats import ColumnMap, detect, to_record
from merit_jax.data.group_by import group_digest, read_groups
from merit_jax.data.image_contents import UNPACKED
from merit_jax.data.images import unpack
from merit_jax.data.manifest import Entry
from merit_jax.data.message_texts import images_of
from merit_jax.data.readers import files_digest, read_rows
from merit_jax.data.rows import FileError, OnError, Row, RowError, fail
from merit_jax.workdir.paths import absolute


def read_entry(entry: Entry, on_error: OnError = fail, *, cache_dir: epath.PathLike | None = None) -> list[Record]:
    """Reads the records of an entry's training files, as the entry says; arguments as for `read_records`.

    Lines without a group belong to no dataset; `read_manifest` reports them. A column that the entry names must be in one of the
    rows (with `group_by`, in those of any group); in held-out files that are read apart, it may be in none.
    """
    groups = read_groups(entry.files, entry.group_by, lambda _: None) if entry.group_by else {}
    keys: set[str] = set()
    records = []
    for file in entry.files:
        rows = groups.get(entry.name, {}).get(file, ()) if entry.group_by else read_rows(file, on_error)
        seen = _noting(rows, keys)
        records += read_records(file, entry.format, entry.layout, on_error, rows=seen, cache_dir=cache_dir)
    named = entry.layout.columns
    if not keys or entry.files == entry.held_out_files or keys.issuperset(named.values()):
        return records
    keys.update(key for group in groups.values() for rows in group.values() for _, row in rows for key in row)
    try:
        check_columns(named, keys, listed(entry.files))
    except ValueError as error:
        on_error(FileError.of(error, listed(entry.files)))
    return records


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
            on_error(RowError.of(error, where, container_hint(row)))
            continue
        if cache_dir is not None and images_of(record.messages):
            record = unpack(record, absolute(cache_dir) / UNPACKED)
        records.append(record)
    return records


def _noting(rows: Iterable[tuple[str, Row]], keys: set[str]) -> Iterator[tuple[str, Row]]:
    """Yields the rows, and adds their keys to `keys`."""
    for where, row in rows:
        keys.update(row)
        yield where, row


def split_held_out(entry: Entry, records: Sequence[Record], seed: int) -> tuple[list[Record], list[Record]]:
    """Splits held-out records off: (training, held out), each in file order.

    Raises:
        ValueError: Nothing would be held out, or nothing left to train on.
    """
    count = round(entry.held_out * len(records)) if isinstance(entry.held_out, float) else entry.held_out
    if not 0 < count < len(records):
        raise ValueError(
            f"dataset {entry.name!r}: held_out = {entry.held_out} takes {count} of the {len(records)} rows of "
            f"{listed(entry.files)}; at least one row must be held out and one left to train on"
        )
    order = np.random.default_rng(fold(seed, "held_out", entry.name)).permutation(len(records))
    return [records[i] for i in np.sort(order[count:])], [records[i] for i in np.sort(order[:count])]


def sample(records: list[Record], limit: int, seed: int) -> list[Record]:
    """Samples at most `limit` records (0: all), in file order; a larger limit keeps those of a smaller one."""
    if not 0 < limit < len(records):
        return records
    return [records[i] for i in np.sort(np.random.default_rng(seed).permutation(len(records))[:limit])]


def image_roots(entry: Entry) -> tuple[str, ...]:
    """Returns the folders from which relative paths of an entry's images start."""
    files = (*entry.files, *entry.held_out_files)
    return (entry.layout.image_root,) if entry.layout.image_root else tuple(posixpath.dirname(file) for file in files)


def entry_digest(entry: Entry) -> str:
    """Returns a sha256, in hex, over the bytes of an entry's files and the manifest's options for reading them.

    It does not depend on the folder of the files, only on the path from there to the images.
    """
    columns, tags, root = entry.layout
    images = posixpath.relpath(root, posixpath.dirname(entry.files[0]) or ".") if root else "."
    options = (entry.format, sorted(columns.items()), sorted(tags.items()), images, entry.held_out, entry.num_samples)
    group = (entry.group_by, entry.name) if entry.group_by else None
    digest = group_digest if group else files_digest
    digests = [digest(files) for files in (entry.files, entry.held_out_files) if files]
    return hashlib.sha256(repr((digests, options, group)).encode()).hexdigest()
