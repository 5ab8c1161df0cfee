"""Errors that say more than their message: of work that can be resumed, and of the machine in place of the content of a file."""

import errno
import os
import re
from collections.abc import Iterator

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

ADVICE = {
    errno.EMFILE: "; raise `ulimit -n`",
    errno.ENOSPC: "; make room",
    errno.EDQUOT: "; make room",
    errno.EACCES: "; the user who runs this has no right to it",
    errno.EPERM: "; the user who runs this has no right to it",
}
AGAIN = "; nothing is known to be wrong with the file, run the command again"

_NUMBER = re.compile(r"\((?:os error|error code:?|errno) (\d+)\)|\[[Ee]rrno (\d+)\]")
_EXHAUSTED = "RESOURCE_EXHAUSTED"
"""XLA's word for a device, or a host, without memory."""
_NAMED = (
    "EIO",
    "ESTALE",
    "EMFILE",
    "ENFILE",
    "EACCES",
    "EPERM",
    "ENOSPC",
    "EDQUOT",
    "EROFS",
    "ETIMEDOUT",
    "ENOMEM",
    "ECONNRESET",
)
_TEXTS = {os.strerror(code): code for code in (getattr(errno, name) for name in _NAMED)}


class UnfinishedError(Exception):
    """The work was preempted and has saved its state, or another process is doing it; run again to resume."""


class FailedError(Exception):
    """The work has failed for no reason that its user can mend in the command; run again, it resumes."""


def machine_error(error: BaseException, where: object) -> OSError | MemoryError | None:
    """Returns what a machine could not do, as an error that names a file; None for an error of the file's content.

    Out of memory, out of descriptors, no right to read, a disk or a network that fails: none of it says that the file is
    damaged. Libraries written in other languages pass such errors on as text, which is searched for them.

    Args:
        error: The error of a reader.
        where: The file.

    Examples:
        >>> machine_error(OSError(errno.EIO, "Input/output error"), "a.json")
        OSError(5, 'Input/output error; nothing is known to be wrong with the file, run the command again')
        >>> machine_error(ValueError("no JSON"), "a.json") is None
        True
    """
    for link in _chain(error):
        if (code := _code(link)) is not None:
            return OSError(code, os.strerror(code) + ADVICE.get(code, AGAIN), str(where))
        if isinstance(link, MemoryError) or _EXHAUSTED in str(link):
            return MemoryError(f"{where}: out of memory ({str(link) or 'while it was read':.300}){AGAIN}")
    return None


def raise_if_of_machine(error: BaseException, where: object) -> None:
    """Raises an error of the machine under the name of a file (see `machine_error`); returns where the content is at fault."""
    found = machine_error(error, where)
    if found is not None:
        raise found from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and those that it was raised for."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        yield link
        seen.append(link)
        link = link.__cause__ or link.__context__


def _code(error: BaseException) -> int | None:
    """Returns the number of a system error of the machine, which the error has or mentions; None if there is none."""
    code = system_number(error)
    return None if code in CONTENT else code


def system_number(error: BaseException) -> int | None:
    """Returns the number of the system error that an error is, or that its text mentions; None if there is none.

    Examples:
        >>> system_number(OSError("config: [Errno 2] No such file")), system_number(ValueError("no JSON"))
        (2, None)
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if found := _NUMBER.search(text):
        return int(found[1] or found[2])
    return next((code for words, code in _TEXTS.items() if words in text), None)
