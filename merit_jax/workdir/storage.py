"""Local and remote paths."""

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is a URL, as gs://bucket/folder, which epath opens, instead of a local path."""
    return "://" in str(path)
