"""Reads a mixture: every dataset of a manifest is read, checked, sampled and tokenised."""

import hashlib
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from merit_jax.core.seeds import fold
from merit_jax.core.types import Dataset, ReadReport, Record
from merit_jax.data.chat_template import Encoded, encode_whole, tokenizer_digest
from merit_jax.data.data_files import listed
from merit_jax.data.flaws import MAX_FLAWED, flaw_sentences, refuse_flawed
from merit_jax.data.group_by import forget
from merit_jax.data.image_contents import DamagedImageError, ImageContents
from merit_jax.data.image_roots import image_root_hint
from merit_jax.data.manifest import Entry, read_manifest, taken_for_lines
from merit_jax.data.message_texts import images_of
from merit_jax.data.records import entry_digest, image_roots, read_entry, sample, split_held_out
from merit_jax.data.rows import OnError, RowError, fail
from merit_jax.data.token_cache import TokenTable, as_table, is_saved, load_table, save_table
from merit_jax.data.token_ids import check_ids
from merit_jax.workdir.checksums import Stamp, stamp
from merit_jax.workdir.paths import absolute

log = logging.getLogger("merit_jax")

CACHE_VERSION = "6"
NAMED = 20
"""Datasets whose files a run's log names; the others are counted."""


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
    max_flawed: float = MAX_FLAWED,
    seed: int,
    cache_dir: epath.PathLike | None = None,
    elsewhere: Container[str] = (),
) -> tuple[Dataset, ...]:
    """Reads the datasets of a mixture.

    Args:
        path: Manifest or glob (see `manifest.read_manifest`); empty where all datasets are elsewhere.
        tokenizer: A `chat_template.Tokenizer`.
        include: Names or fnmatch patterns of the datasets to keep; all if empty.
        max_length: Tokens per example; the rest is truncated.
        max_train: Training rows per dataset, sampled by `seed` and the dataset's name; 0 for all.
        max_held_out: The same for held-out rows.
        max_flawed: Share of a dataset's training rows that may have a flaw of `flaws.flaw_sentences`; some are logged.
        seed: The run's seed.
        cache_dir: Folder that keeps tokenised datasets between runs, and images that dataset files embed; None for none.
        elsewhere: Names of datasets that a manifest may name although none of their files is here; they are left out.

    Returns:
        The datasets, sorted by name.

    Raises:
        ValueError: The manifest or a record is bad, or a dataset has too many flawed rows.
    """
    limits = Limits(max_length, max_train, max_held_out)
    listed_entries = read_manifest(path, include) if path or not elsewhere else ()
    entries = sorted((e for e in listed_entries if e.name not in elsewhere or _is_here(e)), key=lambda e: e.files)
    for line in taken_for_lines(sorted(entries), NAMED):
        log.info("%s", line)
    try:
        datasets = [read_dataset(entry, tokenizer, limits, seed=seed, cache_dir=cache_dir) for entry in entries]
    finally:
        if any(entry.group_by for entry in entries):
            forget()
    for name, report in ((dataset.name, dataset.report) for dataset in datasets):
        refuse_flawed(name, report, max_flawed)
        for _, sentence in flaw_sentences(name, report):
            log.warning("%s", sentence)
    return tuple(sorted(datasets, key=lambda dataset: dataset.name))


def _is_here(entry: Entry) -> bool:
    """Returns whether any file of a dataset is on this machine; one that lacks some is an error of whoever reads it."""
    return any(epath.Path(file).exists() for file in entry.files)


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
    before, digest, folder, first = _stamps(entry), entry_digest(entry), None, ""
    if cache_dir is not None and on_error is fail:
        folder = _cache_folder(cache_dir, entry, digest, tokenizer_digest(tokenizer), limits, seed)
    contents = None if folder is None else ImageContents(folder)
    table = _load_intact(folder, contents) if folder is not None and is_saved(folder) else None
    intact = table is not None
    if table is not None:
        held_out = read_splits(entry, limits, seed, on_error, cache_dir, train=False)[1]
    else:
        train, held_out = read_splits(entry, limits, seed, on_error, cache_dir)
        encoded = list(_encoded(entry, tokenizer, filter(keep, train), limits.max_length, on_error))
        missing = [(record, found.unseen) for record, found in encoded if found.unseen]
        first = f"{missing[0][0].where}: {missing[0][1][0]}" if missing else ""
        table = as_table(
            [found.example for _, found in encoded],
            truncated=sum(found.truncated for _, found in encoded),
            unended=sum(found.unended for _, found in encoded),
            unseen=len(missing),
        )
        checked = _encoded(entry, tokenizer, filter(keep, held_out), limits.max_length, on_error)
        held_out = [record for record, _ in checked]
        if folder is not None:
            save_table(table, folder)
    check_ids(tokenizer, table.tokens, f"dataset {entry.name!r}")
    for file in before:
        if stamp(file) != before[file]:
            raise ValueError(f"dataset {entry.name!r}: {file} was written while it was read; start again")
    images = _digests(contents, table, held_out, intact=intact)
    return Dataset(entry.name, table, tuple(held_out), _report(entry, table, digest, images, first))


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


def _report(entry: Entry, table: TokenTable, digest: str, images: tuple[str, str], first: str) -> ReadReport:
    """Counts what was read; the digest is that of the files and of the training rows' images."""
    own, apart = images
    if own:
        digest = hashlib.sha256(repr((digest, own)).encode()).hexdigest()
    tokens = int(table.supervised_counts.sum())
    files = (*entry.files, *entry.held_out_files)
    sizes = (len(table), int(table.truncated), tokens, len(table.tokens))
    flaws = (int(table.unended), int(table.unseen), first)
    return ReadReport(files, digest, *sizes, apart, *flaws)


def _stamps(entry: Entry) -> dict[str, Stamp]:
    """Returns the stamps of an entry's files; of those that are there."""
    files = (*entry.files, *entry.held_out_files)
    return {file: stamp(file) for file in files if epath.Path(file).exists()}


def read_splits(
    entry: Entry, limits: Limits, seed: int, on_error: OnError, cache_dir: epath.PathLike | None, *, train: bool = True
) -> tuple[list[Record], list[Record]]:
    """Reads, splits and samples the records of a dataset: those that become its examples, one for each, and its held-out ones.

    Args:
        entry: Its entry in the manifest.
        limits: How much to read.
        seed: The run's seed.
        on_error: Called with the error of every bad record, which is then left out.
        cache_dir: Folder in whose `images/` embedded images are written; None: they stay in memory.
        train: Read the training file; without it, it is read only where a split needs it.

    Returns:
        (training, held out), each in the order of the files.
    """
    records = read_entry(entry, on_error, cache_dir=cache_dir) if train or entry.held_out else []
    apart = entry._replace(files=entry.held_out_files)
    held_out = read_entry(apart, on_error, cache_dir=cache_dir) if entry.held_out_files else []
    if entry.held_out:
        records, held_out = split_held_out(entry, records, seed)
    if entry.num_samples > len(records) > 0:
        raise ValueError(
            f"dataset {entry.name!r}: num_samples is {entry.num_samples}, {listed(entry.files)} has {len(records)} training rows"
        )
    for limit, purpose in ((entry.num_samples, "num_samples"), (limits.max_train, "max_train")):
        records = sample(records, limit, fold(seed, purpose, entry.name))
    return records, sample(held_out, limits.max_held_out, fold(seed, "max_held_out", entry.name))


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


def _cache_folder(
    cache_dir: epath.PathLike, entry: Entry, digest: str, tokenizer: str, limits: Limits, seed: int
) -> epath.Path:
    """Names the cache folder after everything that the tokens, and the paths of images, depend on."""
    places = sorted({str(absolute(epath.Path(file).parent)) for file in (*entry.files, *entry.held_out_files)})
    key = repr((CACHE_VERSION, entry.name, places, digest, tokenizer, limits, seed))
    return epath.Path(cache_dir) / hashlib.sha256(key.encode()).hexdigest()[:32]
