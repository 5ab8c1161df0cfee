"""Refuses what is no ordinary file before it is opened: a pipe that never ends, a device, a loop of links, a file too large."""

import errno
import stat
from pathlib import Path

MAX_SETTINGS = 2**28
"""Bytes of a settings file (config, tokenizer, index of shards) that are read."""
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENAMETOOLONG}


def check_regular(file: Path, max_bytes: int | None = None) -> None:
    """Refuses a path that does not lead to a regular file; links are followed.

    Args:
        file: Path.
        max_bytes: Most bytes of the file; None for no limit.

    Raises:
        ValueError: It is missing, a folder, a pipe, a device, a socket, a loop of links, or larger.
    """
    try:
        found = file.stat()
    except ValueError as error:
        raise ValueError(f"{str(file)!r:.200}: no such file ({error}); correct the path") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{file}: a loop of links; put the file itself there") from None
        if error.errno in _NO_FILE:
            raise ValueError(f"{file!s:.200}: no such file; correct the path or fetch it again") from None
        raise
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        raise ValueError(f"{file}: {kind}; expected a file")
    if max_bytes is not None and found.st_size > max_bytes:
        raise ValueError(f"{file}: {found.st_size} bytes, at most {max_bytes} are read; is it the right file?")
