"""The tensors of a safetensors file where they are in it, mapped into memory."""

import json
from pathlib import Path

import numpy as np

from merit_jax.models.io.disk import named
from merit_jax.models.io.errors import raise_if_of_machine
from merit_jax.models.io.safetensors import TensorSpec


class MappedFile:
    """A safetensors file of which parts of tensors can be read without the rest.

    A tensor is mapped as long as an array of it is held; the system reads what is looked at, and may forget it again.

    Args:
        file: A file whose header `read_specs` has read.

    Raises:
        OSError: It cannot be read.
    """

    def __init__(self, file: Path):
        self._file, self._state = file, _state(file)
        with named(file), file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        self._starts = {
            key: 8 + length + entry["data_offsets"][0] for key, entry in header.items() if key != "__metadata__"
        }

    def view(self, spec: TensorSpec) -> np.ndarray:
        """Returns a tensor, read-only.

        Raises:
            ValueError: The file has changed since it was opened.
            OSError: It cannot be mapped.
        """
        if _state(self._file) != self._state:
            raise ValueError(
                f"{self._file}: changed while its tensors were read; run the command again on files that stay"
            )
        if not spec.nbytes:
            return np.empty(spec.shape, spec.dtype)
        try:
            mapped = np.memmap(self._file, spec.dtype, "r", self._starts[spec.key], spec.shape)
        except (OSError, MemoryError, ValueError) as error:
            raise_if_of_machine(error, self._file)
            raise ValueError(
                f"{self._file}: tensor {spec.key!r} cannot be read (truncated or damaged?): {error}"
            ) from None
        return mapped.view(np.ndarray)


def _state(file: Path) -> tuple[int, int, int]:
    """Returns what changes when a file is written again or replaced."""
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
