"""Reads held-out suites, record files that are no dataset of the mixture, and averages them by kind.

A *retained* suite tests skills that theta0 had already, a *skill* suite those that the mixture teaches.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from etils import epath

from merit_jax.core.seeds import fold
from merit_jax.core.text import matches
from merit_jax.core.types import Record
from merit_jax.data.image_contents import ImageContents
from merit_jax.data.manifest import Entry, read_manifest, taken_for_lines
from merit_jax.data.message_texts import images_of
from merit_jax.data.mixture import NAMED
from merit_jax.data.records import entry_digest, read_entry, sample
from merit_jax.evaluation.questions import repeats
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import absolute

log = logging.getLogger("merit_jax")

Half = Literal["all", "choosing", "reporting"]
"""A part of a suite: scales and merge weights are chosen on one half of its records and reported on the other."""


class Kinds(NamedTuple):
    """Mean accuracy over the suites of each kind, every suite counting once; None where there are none.

    Attributes:
        retained: Of the suites of theta0's own skills.
        skill: Of the other suites.
    """

    retained: float | None
    skill: float | None


def load_suites(path: str) -> dict[str, list[Record]]:
    """Reads all records of the suites of a manifest or glob (see `manifest.read_manifest`), and logs their files.

    Raises:
        ValueError: The manifest or a record is bad.
    """
    entries = read_manifest(path, suites=True)
    for line in taken_for_lines(entries, NAMED, "evaluated"):
        log.info("suite %s", line)
    return {entry.name: read_entry(entry) for entry in entries}


def draw_records(
    suites: Mapping[str, list[Record]], half: Half = "all", *, max_records: int = 0, seed: int
) -> dict[str, list[Record]]:
    """Samples the records of a half of every suite.

    A suite is split by its name alone, so that its halves are the same for every seed, model and run. Records of one question
    are in one half, so that nothing is chosen on a question that is reported. The reporting half is the larger one where the
    number of records is odd, or repeated questions leave no other way.

    Args:
        suites: Name -> all records, as `load_suites` gives them.
        half: "choosing" (where scales and weights are chosen), "reporting" (where scores are reported) or "all".
        max_records: Records per suite, sampled within the half by `seed` and the suite's name; 0 for all.
        seed: The run's seed.

    Raises:
        ValueError: A suite is too small to be halved; it is named.
    """
    return {
        name: sample(_half(name, records, half), max_records, fold(seed, "suite", name))
        for name, records in suites.items()
    }


def _half(name: str, records: list[Record], half: Half) -> list[Record]:
    """Returns the records of a half, in file order."""
    if half == "all":
        return records
    questions = repeats(records)
    if len(questions) < 2:
        same = ", all of one question" * (len(records) > 1)
        raise ValueError(
            f"suite {name!r} has {len(records)} record{'s' * (len(records) > 1)}{same}, and frontier.scales needs 2 questions, "
            "as does merge.search_evaluations: one half of a suite chooses, the other is reported; add records, or leave the "
            "suite out of evaluate.suites"
        )
    choosing: set[int] = set()
    for place in np.random.default_rng(fold(0, "half", name)).permutation(len(questions)):
        if len(choosing) + len(questions[place]) <= len(records) // 2:
            choosing.update(questions[place])
    return [record for place, record in enumerate(records) if (place in choosing) == (half == "choosing")]


def suite_digests(path: str, images: epath.PathLike | None = None) -> dict[str, str]:
    """Returns suite -> digest of its files, whatever their folder; none without a path.

    Args:
        path: Manifest of the suites.
        images: Folder of the token cache, which keeps checksums of the records' images, to be part of the digests; None: the
            records of a text model have none.
    """
    return {entry.name: _digest(entry, images) for entry in read_manifest(path, suites=True)} if path else {}


def _digest(entry: Entry, cache_dir: epath.PathLike | None) -> str:
    digest = entry_digest(entry)
    if cache_dir is None:
        return digest
    contents = ImageContents(absolute(cache_dir) / f"suite-{fingerprint(entry.name)[:16]}")
    images = contents.digest(images_of(record.messages) for record in read_entry(entry))
    contents.save()
    return fingerprint([digest, images]) if images else digest


def kinds(accuracies: Mapping[str, float], retained: Sequence[str]) -> Kinds:
    """Averages over the suites that a name or fnmatch pattern of `retained` matches, and over the others.

    Raises:
        ValueError: A pattern matches no suite.

    Examples:
        >>> kinds({"colours": 0.5, "shapes": 1.0, "chat": 0.25}, retained=["chat"])
        Kinds(retained=0.25, skill=0.75)
    """
    matched(list(accuracies), retained, "evaluate.retained")
    parts = split_suites(list(accuracies), retained)
    return Kinds(*(mean_accuracy([accuracies[name] for name in part]) if part else None for part in parts))


def matched(names: Sequence[str], patterns: Sequence[str], key: str) -> list[str]:
    """Returns the suites that a name or fnmatch pattern of a configuration key means.

    Raises:
        ValueError: A pattern matches no suite.

    Examples:
        >>> matched(["old_a", "new"], ["old_*"], "evaluate.retained")
        ['old_a']
    """
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            raise ValueError(f"{key}: no suite matches {pattern!r}; known: {', '.join(names)}")
    return split_suites(names, patterns)[0]


def split_suites(names: Sequence[str], retained: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits names into those that a name or fnmatch pattern of `retained` matches, and the others.

    Examples:
        >>> split_suites(["old_a", "new", "old_b"], ["old_*"])
        (['old_a', 'old_b'], ['new'])
    """
    old = [name for name in names if any(matches(name, pattern) for pattern in retained)]
    return old, [name for name in names if name not in old]


def mean_accuracy(accuracies: Sequence[float]) -> float:
    """Averages the accuracies of one or more suites, each counting once."""
    return float(np.mean(accuracies))
