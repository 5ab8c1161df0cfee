"""The disk below a folder that is written: room and permission beforehand, and the path in every error."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Puts a path into an OSError that comes without one, as "no space left on device" does from a write.

    Examples:
        >>> with named(Path("out/model.safetensors")):
        ...     raise OSError(errno.EFBIG, "File too large")
        Traceback (most recent call last):
        OSError: [Errno 27] File too large: 'out/model.safetensors'
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), str(path)) from error


def check_room(out: Path, nbytes: int) -> None:
    """Refuses a folder that cannot be made, before anything is computed for it.

    Args:
        out: The folder to make.
        nbytes: Size of the tensors that go into it.

    Raises:
        OSError: The folder above may not be written to, or the disk has less room than that.
    """
    above = out if out.is_mount() else out.absolute().parent
    while not above.exists():
        above = above.parent
    if not os.access(above, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "no permission to write here; choose another folder", str(above))
    free = shutil.disk_usage(above).free
    if free < nbytes:
        needed, left = nbytes / 1e9, free / 1e9
        message = f"the result needs {needed:.3g} GB and {left:.3g} GB are free; make room or choose another folder"
        raise OSError(errno.ENOSPC, message, str(out))
