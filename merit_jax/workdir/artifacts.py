"""Writes artifacts whole or not at all, reads them, and compares their recorded inputs with those of a run."""

import contextlib
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from merit_jax.core.errors import raise_if_of_machine
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.fences import pass_fence
from merit_jax.workdir.left_open import settled
from merit_jax.workdir.leftovers import lock, temporary_name
from merit_jax.workdir.paths import is_remote, is_there

INPUTS = "inputs"
"""Key under which an artifact records its inputs."""

CHECKSUM = "sha256"
"""Key under which a JSON artifact that records its inputs also records the fingerprint of all its other keys."""


_STORAGE = ("tensorstore", "source locations", "Error writing", "Error opening", "os_error")
"""Parts of tensorstore's errors when a file cannot be written."""

_NOTHING = object()
"""The value of a key that is not there."""


def is_current(path: epath.Path, inputs: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Returns whether an artifact exists and was made from exactly these inputs.

    Args:
        path: A `.json` or `.npz` artifact that records its inputs.
        inputs: What it would be made from now; where a value is left open (`left_open`), the recorded one is as good.
        overwrite: Treat an artifact made from other inputs as absent.

    Raises:
        ValueError: It was made from other inputs; the difference is named.
    """
    if not is_there(path):
        return False
    changes = changed_inputs(path, inputs)
    if not changes:
        return True
    if overwrite:
        return False
    raise ValueError(
        f"{path} was made from other inputs: {changes}. Use another --workdir, or --overwrite to make it again from these"
    )


def check_inputs(path: epath.Path, inputs: Mapping[str, Any], made_by: str) -> Mapping[str, Any]:
    """Checks that an artifact that is to be read was made from exactly these inputs, and returns those that it records.

    Args:
        path: A `.json` or `.npz` artifact that records its inputs.
        inputs: As for `is_current`.
        made_by: The command that makes it.

    Raises:
        ValueError: It is missing, damaged, or was made from other inputs; the difference is named.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing; run {made_by} first")
    if changes := changed_inputs(path, inputs):
        raise ValueError(
            f"{path} was made from other inputs: {changes}. Give the config that it was made with, or make it again: {made_by} "
            "--overwrite"
        )
    return read_inputs(path)


def changed_inputs(path: epath.Path, inputs: Mapping[str, Any]) -> str:
    """Returns the differences between the inputs that an artifact records and a run's, as text; "" if there are none."""
    recorded = read_inputs(path)
    return "; ".join(differences(recorded, plain(settled(inputs, recorded))))


def plain(value: Any) -> Any:
    """Returns a JSON value as it is read back: tuples as lists, keys as strings."""
    return json.loads(json.dumps(value))


def differences(old: Any, new: Any, most: int = 5) -> list[str]:
    """Lists at most `most` lines "key: old -> new" for JSON values that differ, and how many more there are."""
    found = list(_changes(old, new, ""))
    return found if len(found) <= most else [*found[:most], f"and {len(found) - most} more"]


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(old.get(key, _NOTHING), new.get(key, _NOTHING), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path}: {_brief(old)} -> {_brief(new)}"


def _brief(value: Any) -> str:
    text = "nothing" if value is _NOTHING else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_inputs(path: epath.Path) -> Mapping[str, Any]:
    """Reads the inputs that an artifact records.

    Raises:
        ValueError: It is missing, damaged, or does not say.
    """
    content: Any = read_arrays(path, (INPUTS,)) if path.suffix == ".npz" else read_json(path)
    if not isinstance(content, Mapping) or INPUTS not in content:
        raise ValueError(f"{path} does not record its inputs; delete it and run its stage again")
    return json.loads(str(content[INPUTS])) if path.suffix == ".npz" else content[INPUTS]


def read_json(path: epath.Path) -> Any:
    """Reads a JSON artifact, without its checksum.

    Raises:
        ValueError: It is missing or damaged, or was changed by hand.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; run the stage that writes it first") from None
    except (OSError, MemoryError, ValueError, RecursionError) as error:
        raise_if_of_machine(error, path)
        raise ValueError(f"{path} is not valid JSON ({error}); delete it and run its stage again") from None
    if isinstance(content, dict) and CHECKSUM in content and content.pop(CHECKSUM) != fingerprint(content):
        raise ValueError(
            f"{path} does not hold what was written (it has another {CHECKSUM} than it records); delete it and run its stage "
            f"again, or take the key {CHECKSUM!r} out if you have changed the file yourself"
        )
    return content


def read_arrays(path: epath.Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Reads an .npz artifact, or those of its arrays that are named and there.

    Raises:
        ValueError: It is missing or damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file if names is None or name in names}
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; run the stage that writes it first") from None
    except Exception as error:
        if not _asks_for_more_than_it_holds(error, path):
            raise_if_of_machine(error, path)
        raise ValueError(f"{path} is damaged ({error}); delete it and run its stage again") from None


def _asks_for_more_than_it_holds(error: Exception, path: epath.Path) -> bool:
    """Returns whether memory ran out for an array larger than its file, whose header must be damaged."""
    shape: Any = getattr(error, "shape", None)  # of NumPy's own MemoryError
    dtype: Any = getattr(error, "dtype", None)
    if not isinstance(error, MemoryError) or shape is None or dtype is None:
        return False
    return math.prod(shape) * dtype.itemsize > path.stat().length


@contextlib.contextmanager
def whole_checkpoint(directory: epath.PathLike) -> Iterator[None]:
    """Names the Orbax checkpoint that is being read in the error of one that is damaged."""
    try:
        yield
    except Exception as error:
        raise_if_of_machine(error, directory)
        reason = str(error).partition(" [tensorstore_spec")[0]
        raise ValueError(f"{directory} is damaged ({reason}); delete it and make it again") from None


@contextlib.contextmanager
def written_checkpoint(directory: epath.PathLike) -> Iterator[None]:
    """Names the Orbax checkpoint that is being written in the error of a disk that does not take it."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if not isinstance(error, OSError) and not any(word in text for word in _STORAGE):
            raise
        reason = text.partition(" [")[0].partition("\n")[0]
        raise OSError(f"{directory}: the checkpoint cannot be written ({reason}); is the disk full?") from None


def write_json(path: epath.Path, value: Any) -> None:
    """Writes a JSON artifact, whole or not at all; with its checksum, if it records its inputs."""
    if isinstance(value, Mapping) and INPUTS in value:
        content = plain({key: part for key, part in value.items() if key != CHECKSUM})
        value = {**content, CHECKSUM: fingerprint(content)}
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: epath.Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    _write(path, lambda file: file.write(text.encode()))


def write_bytes(path: epath.Path, data: bytes) -> None:
    """Writes a file of bytes, whole or not at all."""
    _write(path, lambda file: file.write(data))


def write_array(path: epath.Path, array: np.ndarray) -> None:
    """Writes an .npy file, whole or not at all."""
    _write(path, lambda file: np.save(_Writer(file), array, allow_pickle=False))


@contextlib.contextmanager
def local_folder(out: epath.PathLike, last: str) -> Iterator[Path]:
    """Yields a local folder to fill: `out` itself, or a temporary one that is copied to a bucket afterwards.

    Args:
        out: The folder.
        last: The file that shows that it is whole; it is copied after all others.
    """
    if not is_remote(out):
        yield Path(out)
        return
    out = epath.Path(out)
    with tempfile.TemporaryDirectory() as above:
        made = Path(above) / out.name
        yield made
        files = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
        for name in sorted(files, key=lambda name: (str(name) == last, name)):
            target = out / str(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(made / name).copy(target, overwrite=True)


class _Writer:
    """A file of which NumPy only sees `write`: its own writer for files on disk does not notice a full disk."""

    def __init__(self, file: Any):
        self.write = file.write


def write_arrays(path: epath.Path, inputs: Mapping[str, Any], **arrays: Any) -> None:
    """Writes an .npz artifact with its inputs, whole or not at all."""
    content: dict[str, Any] = {INPUTS: json.dumps(inputs), **arrays}
    _write(path, lambda file: np.savez(file, **content))


def _write(path: epath.Path, fill: Callable[[Any], Any]) -> None:
    """Fills a temporary neighbour of `path` and renames it; an error of the system gets the name of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            local = isinstance(file, io.BufferedIOBase)
            if local:
                lock(file)
            fill(file)
            file.flush()
            if local:
                os.fsync(file.fileno())
                _put(temporary, path)  # while it is locked: a sweep takes what is not
        if not local:
            _put(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            reason = error.strerror or f"cannot be written ({error}); is the disk full?"
            raise OSError(f"{path}: {reason}") from error
        raise


def _put(temporary: epath.Path, path: epath.Path) -> None:
    """Gives a temporary file its name, if its writer may still write."""
    pass_fence(path)
    temporary.replace(path)
