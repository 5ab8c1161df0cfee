"""Finds files that are shipped with the package: in the folder of a checkout, or where a wheel has put them."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Folder that holds `configs` and `examples`: the repository, or merit_jax as installed."""


def shipped(path: str) -> str:
    """Returns a path of the repository from the present folder, which may be another; a glob stays one.

    Args:
        path: For example "examples/bigbench/*.train.jsonl".
    """
    return path if Path.cwd() == ROOT else str(ROOT / path)
