"""Safetensors files: headers and single tensors in, a stream of tensors out."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from merit_jax.models.io.disk import named
from merit_jax.models.io.errors import raise_if_of_machine
from merit_jax.models.io.regular_files import check_regular

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
"""The types of a model's parameters."""

STORED = {
    **DTYPES,
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits // 8}") for kind in "IU" for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(np.bool_),
}
"""The types that a tensor of a folder may have; 8-bit floats and smaller are not among them."""

_CODES = {dtype: code for code, dtype in STORED.items()}


class TensorSpec(NamedTuple):
    """The name, type and shape of a stored tensor."""

    key: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)


def read_specs(file: Path, dtypes: Mapping[str, np.dtype] = DTYPES) -> dict[str, TensorSpec]:
    """Reads names, types and shapes of the tensors of a file, without their data.

    Args:
        file: Path.
        dtypes: The types that are accepted: code -> type.

    Raises:
        ValueError: It is not a sound safetensors file, or holds another type.
    """
    check_regular(file)
    try:
        with safe_open(file, framework="np") as handle:
            slices = {key: handle.get_slice(key) for key in handle.keys()}  # noqa: SIM118 (not a dict)
            found = {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}
    except (SafetensorError, OSError, MemoryError) as error:
        raise_if_of_machine(error, file)
        raise ValueError(f"{file}: not a readable safetensors file (truncated or damaged?): {error}") from None
    for key, (code, _) in found.items():
        if code not in dtypes:
            raise ValueError(f"{file}: tensor {key!r} has type {code}; expected one of {', '.join(dtypes)}")
    return {key: TensorSpec(key, dtypes[code], shape) for key, (code, shape) in found.items()}


def read_tensor(file: Path, key: str) -> np.ndarray:
    """Reads one tensor of a file, which is mapped only meanwhile."""
    try:
        with safe_open(file, framework="np") as handle:
            return handle.get_tensor(key)
    except (SafetensorError, OSError, MemoryError) as error:
        raise_if_of_machine(error, file)
        raise ValueError(f"{file}: tensor {key!r} cannot be read (truncated or damaged?): {error}") from None


def write(file: Path, specs: Sequence[TensorSpec], tensors: Iterator[np.ndarray]) -> None:
    """Writes a file tensor by tensor, holding one at a time; the caller syncs it to disk.

    Args:
        file: Path of the new file.
        specs: The tensors to come, in order.
        tensors: The source of the tensors, of those types and shapes.

    Raises:
        ValueError: A tensor is not as announced.
        OSError: The file cannot be written; its path is in the error.
    """
    with named(file), file.open("wb") as out:
        _write_header(out, specs)
        for spec in specs:
            array = next(tensors)
            if array.dtype != spec.dtype or array.shape != spec.shape:
                got = f"{array.dtype}{list(array.shape)}"
                raise ValueError(f"{file}: {spec.key!r} is {got}, announced as {spec.dtype}{list(spec.shape)}")
            out.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _write_header(out: BinaryIO, specs: Sequence[TensorSpec]) -> None:
    """Writes the length (8 bytes, little endian), then JSON padded with spaces to a multiple of 8 bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for spec in specs:
        end = start + spec.nbytes
        header[spec.key] = {"dtype": _CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
