"""Refuses workdirs of an earlier version, whose artifacts have other names."""

from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir

RETIRED = ("gradients", "vmap")
"""A key of the saved config that only version 0.1 had; its artifacts call theta0 "base"."""


def refuse_older(workdir: Workdir) -> None:
    """Checks that a run was not begun by version 0.1.

    Args:
        workdir: Its directory, which may be new.

    Raises:
        ValueError: It was.
    """
    section, key = RETIRED
    if workdir.config.exists() and key in (read_json(workdir.config).get(section) or {}):
        raise ValueError(
            f"{workdir.root} was begun by merit_jax 0.1, whose artifacts have other names (theta0 is called base there); finish "
            "it with that version, or use another --workdir: branches can be merged from there by merge.branches"
        )
