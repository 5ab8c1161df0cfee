"""Where files are."""

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is a URL, as gs://bucket/folder, which epath opens; else it is on a disk of this machine."""
    return "://" in str(path)
