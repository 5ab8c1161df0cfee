"""Finds the folder in which a missing image would be found."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from merit_jax.core.types import Image
from merit_jax.workdir.paths import is_remote

ABOVE = 4
"""Folders above the image root that are tried."""
INSIDE = 100
"""Folders in the image root, and in the one above it, that are tried."""


def image_root_hint(image: Image, roots: Iterable[str]) -> str:
    """Returns how a missing image can be found; empty where the image is there, is embedded, or is found nowhere.

    Args:
        image: A reference to an image.
        roots: Folders from which relative paths may have started.
    """
    path = image.get("path", "")
    if not path or is_remote(path) or os.path.lexists(path):
        return ""
    if "\\" in path and os.path.isfile(path.replace("\\", "/")):
        return f"{path.replace(chr(92), '/')} is there: write / for \\ in the paths"
    for root in sorted({os.path.realpath(root or ".") for root in roots if not is_remote(root)}):
        relative = os.path.relpath(path, root)
        if relative.startswith(".."):
            continue
        if folder := next((place for place in _places(Path(root)) if (place / relative).is_file()), None):
            return f"it is there with `image_root: {folder}` in the manifest"
    return ""


def _places(root: Path) -> Iterator[Path]:
    yield from root.parents[:ABOVE]
    for folder in (root, root.parent):
        try:
            with os.scandir(folder) as found:
                inside = sorted(entry.path for _, entry in zip(range(INSIDE), found, strict=False) if entry.is_dir())
        except OSError:
            continue
        yield from map(Path, inside)
