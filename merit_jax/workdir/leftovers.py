"""Temporary files of artifacts: how they are called and locked while they are written, and how those of dead processes go."""

import contextlib
import hashlib
import os
import re
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from etils import epath

from merit_jax.workdir.paths import Workdir, is_remote
from merit_jax.workdir.process import Process

try:
    import fcntl
except ImportError:  # Windows: the age of a file says whether it was left behind
    fcntl = None  # type: ignore[assignment]

FORSAKEN = 24 * 3600.0
"""Seconds after which a temporary file of another machine, or a temporary folder, counts as left behind."""

UNLOCKED = 60.0
"""Seconds after which a file that no process has locked counts as left behind: a younger one is about to be locked."""

_NAME = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})?[0-9a-f]{8}\.tmp")


def temporary_name(path: epath.Path) -> epath.Path:
    """Returns a name next to `path` for what will replace it."""
    return path.parent / f".{path.name}.{_machine()}{uuid.uuid4().hex[:8]}.tmp"


def lock(file: Any) -> None:
    """Marks an open temporary file as that of a live process; where the file system has no locks, its age says so."""
    with contextlib.suppress(OSError):
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sweep(workdir: Workdir) -> None:
    """Removes what killed processes have left of files and folders that they were writing, and nothing of live ones."""
    if is_remote(workdir.root):
        return
    folders = [workdir.merged, workdir.merged_next, workdir.root / "diagnostics"]
    folders += [workdir.root, workdir.shared, workdir.gradients, workdir.curvature]
    folders += (workdir.root / "branches").glob("*")
    for folder in (*folders, workdir.root / "branches"):
        sweep_folder(folder)
    for home in workdir.round(0).parent.glob("*"):
        sweep(Workdir(home, home))


def sweep_folder(folder: epath.PathLike) -> None:
    """Removes such leftovers that are directly in a folder."""
    if not os.path.isdir(folder):
        return
    for path in Path(folder).iterdir():
        found = _NAME.fullmatch(path.name)
        if found and _is_forsaken(path, found["machine"] == _machine()):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_forsaken(path: Path, is_ours: bool) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
        if fcntl and is_ours and path.is_file() and age > UNLOCKED:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return age > FORSAKEN
    except OSError:  # locked, or gone by now
        return False


def _machine() -> str:
    """Returns 8 digits for this machine since it was booted, and this container on it."""
    this = Process.this()
    return hashlib.sha256((this.place or this.host).encode()).hexdigest()[:8]
