"""Refuses workdirs of an earlier version, whose artifacts have other names."""

from typing import Any

from etils import epath

from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir

FORMER = "base"
"""The name of theta0 in the artifacts of version 0.1."""


def refuse_older(workdir: Workdir) -> None:
    """Checks that a run was not begun by version 0.1.

    Args:
        workdir: Its directory, which may be new.

    Raises:
        ValueError: It was.
    """
    signs = (
        (workdir.config, "gradients", "vmap"),
        (workdir.evaluation, "models", FORMER),
        (workdir.frontier, "models", FORMER),
        (workdir.projection, "cosines", FORMER),
    )
    if any(key in _section(path, section) for path, section, key in signs):
        raise ValueError(
            f"{workdir.root} was begun by merit_jax 0.1, whose artifacts have other names (theta0 is called base there); finish "
            "it with that version, or use another --workdir: branches can be merged from there by merge.branches"
        )


def _section(path: epath.Path, name: str) -> Any:
    """Returns a section of a JSON artifact; empty where there is none, or the file is damaged, which its readers refuse."""
    try:
        content = read_json(path) if path.exists() else {}
    except ValueError:
        return {}
    section = content.get(name) if isinstance(content, dict) else None
    return section if isinstance(section, dict) else {}
