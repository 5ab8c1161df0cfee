"""Fills a folder elsewhere first, and puts it in its place when it is whole; removes what killed processes have left."""

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: the age of a draft says whether it was left behind
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""File of a draft that its writer holds locked, and that names the writer's machine."""
LAST = ("config.json", "model.safetensors.index.json")
"""Files without which nobody takes a folder for a model: they are put in place after the others."""
FORSAKEN = 24 * 3600.0
"""Seconds after which a draft of a machine that cannot be asked counts as left behind."""


def check_free(out: Path) -> None:
    """Refuses a folder that has something in it, drafts of itself and the `lost+found` of a disk left out."""
    target = out.resolve()
    if target.is_dir():
        free = all(_is_draft(path, target) or path.name == "lost+found" for path in target.iterdir())
    else:
        free = not target.exists()
    if not free:
        raise ValueError(f"{out} exists and is not an empty folder; remove it or choose another")


@contextlib.contextmanager
def draft_of(out: Path) -> Iterator[Path]:
    """Yields a new folder to fill, which becomes `out` when the block ends, or vanishes when it fails.

    The draft is next to `out` and takes its name in one step. Where `out` cannot be renamed over, as it is a mount point or its
    parent is another's, the draft is made in it, and its files are moved up, those last that make it a model. A link to an
    empty folder stays a link.

    Args:
        out: Folder to make; must not exist, or be empty.

    Raises:
        ValueError: `out` is in use.
    """
    target = out.resolve()
    for place in (target.parent, target):
        sweep(place, target)
    check_free(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = _new_draft(target)
    try:
        with _locked(draft):
            yield draft
            (draft / LOCK).unlink()
        _put_in_place(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def sweep(place: Path, out: Path) -> None:
    """Removes drafts of `out` in a folder that a killed process has left; none that a live process writes."""
    for path in place.iterdir() if place.is_dir() else ():
        if _is_draft(path, out) and _is_forsaken(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_draft(path: Path, out: Path) -> bool:
    return path.name.startswith(f".{out.name}.") and path.is_dir() and not path.is_symlink()


def _new_draft(target: Path) -> Path:
    home = target.parent
    if target.is_dir():
        try:
            target.rmdir()  # which a mount point refuses, also one that looks like a plain folder
            target.mkdir()
        except OSError:
            home = target
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=home))


def _put_in_place(draft: Path, target: Path) -> None:
    draft.chmod(0o777 & ~_umask())
    if draft.parent != target:
        os.replace(draft, target)
        return
    for path in sorted(draft.iterdir(), key=lambda path: (path.name in LAST, path.name)):
        os.replace(path, target / path.name)
    draft.rmdir()


@contextlib.contextmanager
def _locked(draft: Path) -> Iterator[None]:
    with (draft / LOCK).open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks: its drafts are judged by their age
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(_machine())
                file.flush()
        yield


def _is_forsaken(draft: Path) -> bool:
    """Returns whether the process that wrote a draft is gone, as its lock says on this machine, and its age elsewhere."""
    try:
        with (draft / LOCK).open() as file:
            if fcntl and file.read() == _machine():
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
    except BlockingIOError:
        return False
    except OSError:
        pass
    with contextlib.suppress(OSError):
        return time.time() - max(path.stat().st_mtime for path in (draft, *draft.rglob("*"))) > FORSAKEN
    return False


def _machine() -> str:
    """Returns a mark of this machine since it was booted."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _umask() -> int:
    """Returns the process's umask, which mkdtemp ignores."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
