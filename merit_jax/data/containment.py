"""Tells whether links lead a file out of the folder that it is named in."""

import functools
import os
from pathlib import PurePath


def is_inside(path: str, folder: str) -> bool:
    """Returns whether a local file is below a folder, or in the store that Hugging Face's cache links its snapshots to.

    Args:
        path: The file, links resolved.
        folder: The folder, whose own links are followed.
    """
    return any(path.startswith(root.rstrip("/") + "/") for root in _roots(folder))


@functools.lru_cache(maxsize=64)
def _roots(folder: str) -> tuple[str, ...]:
    """Returns the real folder, and for one in `CACHE/snapshots/REVISION` the folder `CACHE/blobs`."""
    base = os.path.realpath(folder)
    parts = PurePath(base).parts
    caches = [PurePath(*parts[:place]) for place in range(1, len(parts) - 1) if parts[place] == "snapshots"]
    return (base, *(str(cache / "blobs") for cache in caches[-1:]))
