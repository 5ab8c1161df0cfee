"""Opens GGUF files with the gguf package's reader, within bounds: memory grows with the file's size, not with what it claims."""

from pathlib import Path
from typing import Any, no_type_check

import numpy as np

from merit_jax.models.io.errors import raise_if_of_machine
from merit_jax.models.io.regular_files import check_regular

MAX_KEYS, MAX_TENSORS, MAX_AXES = 2**12, 2**16, 8
"""Most metadata keys, tensors, and axes of a tensor."""
_DAMAGES = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""Exceptions of gguf's reader on damaged files."""


def open_reader(path: Path) -> tuple[Any, dict[str, Any]]:
    """Opens a file with a `gguf.GGUFReader` that never reads past its end, and reads its metadata, GGUF key -> value.

    Raises:
        ImportError: The gguf package is not installed.
        ValueError: The file is missing, truncated or damaged, or one part of several.
    """
    try:
        import gguf
    except ImportError:
        raise ImportError("reading .gguf files needs the gguf package: pip install 'merit-jax[gguf]'") from None

    check_regular(path)
    try:
        with np.errstate(over="raise"):
            reader = _bounded(gguf)(path)
        _check_places(reader)
        metadata = {key: _value(field, gguf.GGUFValueType.ARRAY) for key, field in reader.fields.items()}
    except (*_DAMAGES, OSError, MemoryError) as error:
        raise_if_of_machine(error, path)
        raise ValueError(f"{path}: not a readable GGUF file (truncated or damaged?): {error}") from None
    _check_whole(path, metadata)
    return reader, metadata


def _bounded(gguf: Any) -> type:
    """Returns the package's reader, with its counts limited and an array read at once instead of item by item."""
    kinds = gguf.GGUFValueType

    class Reader(gguf.GGUFReader):
        @no_type_check
        def _get(self, offset, dtype, count=1, override_order=None):
            """Reads items of the file; unlike the original, fails past its end, and makes no slow slices of a memmap."""
            kind = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
            return np.frombuffer(self.data, kind, int(count), int(offset))

        @no_type_check
        def _build_fields(self, offs, count):
            _limit(int(count), MAX_KEYS, "metadata keys")
            return super()._build_fields(offs, count)

        @no_type_check
        def _build_tensor_info(self, offs, count):
            _limit(int(count), MAX_TENSORS, "tensors")
            return super()._build_tensor_info(offs, count)

        @no_type_check
        def _get_field_parts(self, orig_offs, raw_type):
            if raw_type != kinds.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            inner = kinds(self._get(orig_offs, np.uint32)[0])
            count, start = int(self._get(orig_offs + 4, np.uint64)[0]), orig_offs + 12
            if inner == kinds.STRING:
                texts, end = self._texts(start, count)
                return end - orig_offs, [texts], [0], [kinds.ARRAY, inner]
            if inner not in self.gguf_scalar_to_np:
                raise ValueError("an array of arrays")
            items = self._get(start, self.gguf_scalar_to_np[inner], count)
            return start - orig_offs + items.nbytes, [items], [0], [kinds.ARRAY, inner]

        @no_type_check
        def _texts(self, start, count):
            """Reads strings; each is a length of eight bytes, and UTF-8."""
            _limit(count, (len(self.data) - start) // 8, "strings")
            view, order = memoryview(self.data), "little" if self.endianess == gguf.GGUFEndian.LITTLE else "big"
            texts = []
            for _ in range(count):
                begin = start + 8
                start = begin + int.from_bytes(view[start:begin], order)
                if start > len(view):
                    raise ValueError("a string is longer than the file")
                texts.append(str(view[begin:start], "utf-8"))
            return texts, start

    return Reader


def _limit(count: int, most: int, name: str) -> None:
    if count > most:
        raise ValueError(f"{count} {name}, at most {most} are read")


def _value(field: Any, array: Any) -> Any:
    """Returns the value of a metadata field."""
    if not field.types or field.types[0] != array:
        return field.contents()
    items = field.parts[-1]
    return items if isinstance(items, list) else items.tolist()


def _check_places(reader: Any) -> None:
    """Refuses tensors that share bytes, of which a small file could hold any number."""
    end, last = 0, ""
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.data_offset):
        _limit(len(tensor.shape), MAX_AXES, f"axes of {tensor.name!r:.80}")
        if tensor.n_bytes and tensor.data_offset < end:
            raise ValueError(f"tensors {last!r:.80} and {tensor.name!r:.80} share bytes")
        if tensor.n_bytes:
            end, last = tensor.data_offset + tensor.n_bytes, tensor.name


def _check_whole(path: Path, metadata: dict[str, Any]) -> None:
    """Refuses one part of a model that is split into several files."""
    parts = metadata.get("split.count", 0)
    if parts not in (0, 1):
        number = metadata.get("split.no", 0)
        where = f"part {number + 1} of {parts}" if isinstance(number, int) else f"one of {parts} parts"
        raise ValueError(
            f"{path}: {where} of a split model (split.count = {parts}); join the parts with llama.cpp's "
            "`llama-gguf-split --merge FIRST_PART WHOLE.gguf` and give the whole file"
        )
