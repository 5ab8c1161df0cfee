"""Reads one dataset of a mixture: its records, checked, sampled and tokenised, from the token cache where they are in it."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from merit_jax.core.types import Dataset, ReadReport, Record
from merit_jax.data.chat_template import Encoded, encode_whole, tokenizer_digest
from merit_jax.data.image_contents import DamagedImageError, ImageContents
from merit_jax.data.image_roots import image_root_hint
from merit_jax.data.manifest import Entry
from merit_jax.data.message_texts import images_of
from merit_jax.data.record_splits import Limits, read_splits
from merit_jax.data.records import entry_digest, image_roots
from merit_jax.data.rows import OnError, RowError, fail
from merit_jax.data.skipped import (
    SkipRows,
    load_skipped,
    refuse_empty,
    save_skipped,
    without_skipped,
)
from merit_jax.data.token_cache import TokenTable, as_table, is_saved, load_table, save_table
from merit_jax.data.token_ids import check_ids
from merit_jax.workdir.checksums import Stamp, stamp
from merit_jax.workdir.paths import absolute

log = logging.getLogger("merit_jax")

CACHE_VERSION = "7"


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
        cache_dir: Folder of the token cache, or None. It is used with the default `on_error` and a `SkipRows` only.
        on_error: Called with the error of every bad record, which is then left out; the default raises, and a `SkipRows` lists
            it in the report.
        keep: Returns whether a record is used; called once for each.

    Returns:
        The dataset. Held-out records have been checked to encode, and stay records.
    """
    before, digest, skip = _stamps(entry), entry_digest(entry), isinstance(on_error, SkipRows)
    folder = None
    if cache_dir is not None and (on_error is fail or skip):
        key = (tokenizer_digest(tokenizer), limits, seed, skip)
        folder = _cache_folder(cache_dir, entry, digest, key)
    contents = None if folder is None else ImageContents(folder)
    kept = _load_intact(folder, contents) if folder is not None and is_saved(folder) else None
    if folder is not None and kept is not None:
        table, first = kept, ""
        held_out = _held_out(entry, limits, seed, on_error, cache_dir, folder)
    else:
        train, apart = read_splits(entry, limits, seed, on_error, cache_dir)
        table, first = _tokenise(entry, tokenizer, filter(keep, train), limits.max_length, on_error)
        checked = _encoded(entry, tokenizer, filter(keep, apart), limits.max_length, on_error)
        held_out = [record for record, _ in checked]
        if folder is not None:
            save_skipped(on_error, folder)
            save_table(table, folder)
    check_ids(tokenizer, table.tokens, f"dataset {entry.name!r}")
    for file in before:
        if stamp(file) != before[file]:
            raise ValueError(f"dataset {entry.name!r}: {file} was written while it was read; start again")
    images = _digests(contents, table, held_out, intact=kept is not None)
    report = _report(entry, table, digest, images, limits.weight)
    skipped = tuple(on_error.rows) if isinstance(on_error, SkipRows) else ()
    return Dataset(
        entry.name, table, tuple(held_out), report._replace(first_unseen=first, skipped=skipped, origin=entry.origin)
    )


def _tokenise(
    entry: Entry, tokenizer: Any, records: Iterable[Record], max_length: int, on_error: OnError
) -> tuple[TokenTable, str]:
    """Encodes the training records; also returns the first text that the chat template leaves out.

    Raises:
        ValueError: Rows are skipped, and none is left.
    """
    encoded = list(_encoded(entry, tokenizer, records, max_length, on_error))
    refuse_empty(entry.name, len(encoded), on_error, entry.held_out_files)
    missing = [(record, found.unseen) for record, found in encoded if found.unseen]
    table = as_table(
        [found.example for _, found in encoded],
        truncated=sum(found.truncated for _, found in encoded),
        unended=sum(found.unended for _, found in encoded),
        unseen=len(missing),
    )
    return table, f"{missing[0][0].where}: {missing[0][1][0]}" if missing else ""


def _held_out(
    entry: Entry,
    limits: Limits,
    seed: int,
    on_error: OnError,
    cache_dir: epath.PathLike | None,
    folder: epath.Path,
) -> list[Record]:
    """Reads the held-out records of a dataset whose tokens are in a cache folder; rows that were skipped then are so again."""
    if not isinstance(on_error, SkipRows):
        return read_splits(entry, limits, seed, on_error, cache_dir, train=False)[1]
    on_error.rows = list(load_skipped(folder))
    found = read_splits(entry, limits, seed, SkipRows(), cache_dir, train=False)[1]
    return without_skipped(found, on_error.rows)


def _load_intact(folder: epath.Path, contents: ImageContents | None) -> TokenTable | None:
    """Loads the table of a cache folder; None if an image that it was made from has changed, or was unpacked and is damaged."""
    table = load_table(folder)
    if contents is None or not table.images:
        return table
    try:
        if contents.digest(example.images for example in table) == contents.tokenised:
            return table
        log.warning("%s: images have changed since their rows were tokenised; they are tokenised again", folder)
    except DamagedImageError as error:
        log.warning("%s; it is unpacked again", error)
    return None


def _digests(
    contents: ImageContents | None, table: TokenTable, held_out: Sequence[Record], *, intact: bool
) -> tuple[str, str]:
    """Returns the digests of the images of training and of held-out rows, and keeps them; "" where there are none.

    An intact table has just been found to be made from the images that are there.
    """
    if contents is None:
        return "", ""
    images = contents.tokenised if intact else contents.digest(example.images for example in table)
    apart = contents.digest(images_of(record.messages) for record in held_out)
    contents.save(images)
    return (images if table.images else ""), apart


def _report(entry: Entry, table: TokenTable, digest: str, images: tuple[str, str], weight: float) -> ReadReport:
    """Counts what was read; the digest is that of the files, of the training rows' images and of a weight below 1."""
    own, apart = images
    if weight < 1:
        digest = hashlib.sha256(repr((digest, "weight", weight)).encode()).hexdigest()
    if own:
        digest = hashlib.sha256(repr((digest, own)).encode()).hexdigest()
    tokens = int(table.supervised_counts.sum())
    files = (*entry.files, *entry.held_out_files)
    sizes = (len(table), int(table.truncated), tokens, len(table.tokens))
    flaws = (int(table.unended), int(table.unseen))
    return ReadReport(files, digest, *sizes, apart, *flaws)


def _stamps(entry: Entry) -> dict[str, Stamp]:
    """Returns the stamps of an entry's files; of those that are there."""
    files = (*entry.files, *entry.held_out_files)
    return {file: stamp(file) for file in files if epath.Path(file).exists()}


def _encoded(
    entry: Entry, tokenizer: Any, records: Iterable[Record], max_length: int, on_error: OnError
) -> Iterator[tuple[Record, Encoded]]:
    """Yields each record that encodes, and its tokens."""
    for record in records:
        try:
            found = encode_whole(tokenizer, record.messages, max_length, tools=record.tools, where=record.where)
        except ValueError as error:
            named = [image for image in images_of(record.messages) if image.get("path", "\0") in str(error)]
            hints = (image_root_hint(image, image_roots(entry)) for image in named)
            on_error(RowError.of(error, record.where, next(filter(None, hints), "")))
            continue
        yield record, found


def _cache_folder(cache_dir: epath.PathLike, entry: Entry, digest: str, settings: tuple[Any, ...]) -> epath.Path:
    """Names the cache folder after everything that the tokens, and the paths of images, depend on."""
    places = sorted({str(absolute(epath.Path(file).parent)) for file in (*entry.files, *entry.held_out_files)})
    key = repr((CACHE_VERSION, entry.name, places, digest, *settings))
    return epath.Path(cache_dir) / hashlib.sha256(key.encode()).hexdigest()[:32]
