"""Puts a folder of written files in its place, whole or not at all, and never over what others have put there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from merit_jax.workdir.artifacts import read_json, write_json
from merit_jax.workdir.checksums import file_checksums

RECORD = "emitted.json"
"""File that says which files merit partition has written into a folder, with their sha256."""


@contextlib.contextmanager
def whole_folder(out: Path, about: Mapping[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """Yields a new folder to fill, which takes the place of `out` when the block ends, or vanishes when it fails.

    A folder that holds the same files is left as it is.

    Args:
        out: The folder.
        about: What its record says besides the files.
        overwrite: Put it in the place of files that it does not equal, if merit partition has written them.

    Raises:
        ValueError: `out` holds other files, or files that merit partition has not written.
    """
    _check_ours(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as above:
        made = Path(above) / out.name
        made.mkdir()
        yield made
        sums = file_checksums(epath.Path(made))
        write_json(epath.Path(made / RECORD), {**about, "files": sums})
        if not out.exists():
            os.replace(made, out)
        elif not any(out.iterdir()):
            out.rmdir()
            os.replace(made, out)
        elif (changed := _first_difference(out, sums)) is not None:
            _check_replaceable(out, changed, overwrite=overwrite)
            os.replace(out, Path(above) / "before")
            os.replace(made, out)
            shutil.rmtree(Path(above) / "before")


def _check_ours(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose another folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise ValueError(
            f"{out} is not empty, and merit partition has not written it ({RECORD} is missing); choose another folder with --out"
        )


def _first_difference(out: Path, sums: Mapping[str, str]) -> str | None:
    """Returns a file that is missing, other, or no longer to be there; None if there is none."""
    written = read_json(epath.Path(out / RECORD)).get("files", {})
    there = {name: (out / name).is_file() for name in {*sums, *written}}
    now = file_checksums(epath.Path(out), {name for name, is_there in there.items() if is_there})
    return next((name for name in sorted(there) if now.get(name) != sums.get(name)), None)


def _check_replaceable(out: Path, changed: str, *, overwrite: bool) -> None:
    if not overwrite:
        raise ValueError(
            f"{out / changed} is not as it would be written now: the config or the data have changed, or the file by hand; use "
            "--overwrite to write the folder again, or another --out"
        )
    known = {*read_json(epath.Path(out / RECORD)).get("files", {}), RECORD}
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir())
    if others := [name for name in files if name not in known]:
        raise ValueError(
            f"{out / others[0]} was not written by merit partition, and --overwrite would remove it; move it elsewhere, or use "
            "another --out"
        )
