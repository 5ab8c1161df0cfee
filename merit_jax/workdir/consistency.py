"""Compares the records of a workdir with each other and with a config, for readers that open no model and read no data.

A stage compares an artifact with all that the run would make it from (`merit_jax.pipeline.stage`); what is compared here is what
the records themselves say, so that the artifacts of two runs in one folder are not shown or started as one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from merit_jax.workdir.artifacts import differences, plain, read_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import MERGED, Workdir
from merit_jax.workdir.pruning_files import PruningFiles

CHOICES = ("method", "groups", "seed")
"""Keys of `config.partition` that decide a partition."""


def check_partition(workdir: Workdir, chosen: Mapping[str, Any]) -> None:
    """Compares the partition of a workdir with the choice of a config.

    Args:
        workdir: The workdir.
        chosen: The section `partition` of the config.

    Raises:
        ValueError: The partition was made by another method, number of groups or seed; the difference is named.
    """
    made = _inputs(workdir.partition).get("partition")
    if made is None:
        return
    now = {key: chosen[key] for key in CHOICES if key in chosen}
    if changes := differences({key: made.get(key, 0) for key in now}, plain(now)):
        raise ValueError(
            f"{workdir.partition} was made from other inputs: {'; '.join(f'partition.{change}' for change in changes)}. Give the "
            "config that it was made with, or make it again: merit run --stages=partition --overwrite"
        )


def check_records(workdir: Workdir) -> None:
    """Compares the records of a workdir, finished or not, with each other.

    Raises:
        ValueError: One was made from another than the one that is there; both are named.
    """
    config = _content(workdir.config)
    check_partition(workdir, config.get("partition", {}))
    branches = _content(workdir.partition).get("branches", ())
    made = {k: _inputs(workdir.branch_done(k)) for k in range(len(branches))}
    for k, branch in enumerate(branches):
        if "shares" in made[k] and made[k]["shares"] != branch["shares"]:
            raise _foreign(workdir.branch_done(k), workdir.partition, f"merit branch --branch={k}")
    merged = _inputs(workdir.merge_record)
    own = not config.get("merge", {}).get("branches")
    for k, known in enumerate(merged.get("branches", ()) if own else ()):
        if known is not None and made.get(k) and known != fingerprint(made[k]):
            raise _foreign(workdir.merge_record, workdir.branch_done(k), "merit run --stages=merge")
    for path, of, stage in _of_the_merge(workdir):
        if of and merged and of != merged:
            raise _foreign(path, workdir.merge_record, f"merit run --stages={stage}")
    pruned, sums = PruningFiles(workdir.pruned).choice, workdir.merged_sums
    whole = _inputs(Workdir(workdir.pruned, workdir.pruned).theta0).get(MERGED)
    if whole and pruned.exists() and sums.exists() and whole != fingerprint(read_json(sums)):
        raise _foreign(pruned, workdir.merge_record, "merit run --stages=prune")


def _of_the_merge(workdir: Workdir) -> Iterator[tuple[epath.Path, Mapping[str, Any], str]]:
    """Yields the records that name the merge that they are of: path, the merge's inputs, stage."""
    yield workdir.projection, _inputs(workdir.projection).get("merge", {}), "project"
    models = _content(workdir.evaluation).get("models", {})
    yield workdir.evaluation, models.get(MERGED, {}).get("inputs", {}), "evaluate"


def _foreign(path: epath.Path, other: epath.Path, command: str) -> ValueError:
    return ValueError(
        f"{path} was made from another {other.name} than {other}; make it again ({command} --overwrite), or put back the file "
        "that belongs to it"
    )


def _inputs(path: epath.Path) -> Mapping[str, Any]:
    return _content(path).get("inputs", {})


def _content(path: epath.Path) -> Mapping[str, Any]:
    content = read_json(path) if path.exists() else {}
    return content if isinstance(content, Mapping) else {}
