"""The datasets of a run: those that are here, read and tokenised, and those that are elsewhere, as a record has them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from merit_jax.core.types import Dataset
from merit_jax.data.elsewhere import datasets_elsewhere
from merit_jax.data.mixture import load_mixture
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.checksums import stamp
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")

Record = tuple[epath.Path, tuple[int, ...]]
"""The file that names datasets which may be elsewhere, and its stamp."""


def record_elsewhere(workdir: Workdir, *, allowed: bool) -> Record | None:
    """Returns the record of datasets that may be elsewhere: what `merit join` has collected, or else the partition.

    Args:
        workdir: The run's.
        allowed: `mixture.elsewhere`; without it, and before there is a record, every dataset is here.
    """
    for path in (workdir.elsewhere, workdir.partition) if allowed else ():
        if path.exists():
            return path, stamp(path)
    return None


def load_datasets(
    options: Mapping[str, Any], workdir: Workdir, record: Record | None, *, tokenizer: Any, seed: int
) -> tuple[Dataset, ...]:
    """Reads the datasets that are here, and adds those that are elsewhere.

    Args:
        options: The keys of `config.mixture`.
        workdir: The run's.
        record: As `record_elsewhere` gives it.
        tokenizer: The run's.
        seed: The run's.

    Returns:
        The datasets, sorted by name.

    Raises:
        ValueError: As for `load_mixture`; or a dataset is at two places, or in no record.
    """
    log.info("reading the mixture %s", options["path"])
    known = {} if record is None else datasets_elsewhere(read_json(record[0]), str(record[0]))
    own = {key: value for key, value in options.items() if key != "elsewhere"}
    others = None if options["elsewhere"] and record is None else known
    here = load_mixture(**own, tokenizer=tokenizer, seed=seed, cache_dir=workdir.token_cache, elsewhere=others)
    if record is None:
        return here
    (_refuse_unknown if record[0] == workdir.partition else _refuse_twice)([d.name for d in here], known, record[0])
    found = {**known, **{dataset.name: dataset for dataset in here}}
    if away := sorted(set(found) - {dataset.name for dataset in here}):
        log.info("%d of %d datasets are elsewhere: %s", len(away), len(found), ", ".join(away))
    return tuple(found[name] for name in sorted(found))


def _refuse_twice(here: Sequence[str], known: Mapping[str, Dataset], path: epath.Path) -> None:
    if twice := [name for name in here if name in known]:
        raise ValueError(
            f"dataset {twice[0]!r} is here, under mixture.path, and at another site, as {path} says; leave it out here with "
            "mixture.include, or rename one of the two and join again"
        )


def _refuse_unknown(here: Sequence[str], known: Mapping[str, Dataset], path: epath.Path) -> None:
    if unknown := [name for name in here if name not in known]:
        raise ValueError(
            f"dataset {unknown[0]!r} is here, under mixture.path, and {path} does not have it; leave it out with "
            "mixture.include, or join the sites again with it"
        )
