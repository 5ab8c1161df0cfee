"""Checks that a process still holds a part of a workdir, right before each of its writes there takes effect.

A process that was suspended, or cut off, for so long that another has taken its lease must not overwrite what its successor has
written. Whoever writes an artifact asks `pass_fence` as the last thing before the file gets its name.
"""

import contextlib
from collections.abc import Callable, Iterator

from etils import epath

_fences: dict[str, Callable[[], None]] = {}
"""Path of a lease -> raises where this process has lost it."""


@contextlib.contextmanager
def fence(lease: epath.Path, check: Callable[[], None]) -> Iterator[None]:
    """Guards what a lease protects while the block runs.

    Args:
        lease: The lease's file, as `branches/3.lease`; it protects `branches/3` and whatever is called `branches/3.*`.
        check: Raises where the lease is lost.
    """
    _fences[str(lease)] = check
    try:
        yield
    finally:
        del _fences[str(lease)]


def pass_fence(path: epath.Path) -> None:
    """Raises if a file belongs to a part of a workdir that this process has held and lost.

    Raises:
        UnfinishedError: Another process has it now.
    """
    for lease, check in list(_fences.items()):
        if _protects(lease, str(path)):
            check()


def _protects(lease: str, path: str) -> bool:
    part = lease.removesuffix(".lease")
    return path != lease and (path == part or path.startswith((f"{part}/", f"{part}.")))
