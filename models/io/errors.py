"""Tells errors of the machine from those of a file's content, as `merit_jax.core.errors` does, which models cannot import."""

import errno
import os
import re

CONTENT = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EEXIST,
        errno.EILSEQ,
    )
)
"""Numbers of system errors that say something of a path or its content; all others are of the machine, its disk or its limits."""

_NUMBER = re.compile(r"\(os error (\d+)\)")


def raise_if_of_machine(error: BaseException, where: object) -> None:
    """Raises an error of the machine under the name of a file; returns where the file's content is at fault.

    Args:
        error: The error of a reader: of Python, or of a library in Rust, which passes the system's number on as text.
        where: The file.

    Raises:
        MemoryError: Memory ran out.
        OSError: The file could not be read, for want of descriptors, rights, a working disk, ...
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, MemoryError):
            raise MemoryError(f"{where}: out of memory ({link or 'while it was read'})") from error
        code = link.errno if isinstance(link, OSError) else None
        if code is None and (found := _NUMBER.search(str(link))):
            code = int(found[1])
        if code is not None and code not in CONTENT:
            raise OSError(code, os.strerror(code), str(where)) from error
        link = link.__cause__ or link.__context__
