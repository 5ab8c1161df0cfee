"""Reads `.npy` files: small ones whole, large ones mapped into memory without a descriptor that stays open.

Python's own `mmap` keeps a duplicate of the descriptor as long as the mapping, so a mixture of many datasets would run into the
limit of open files (256 on macOS, 1024 elsewhere) although the system needs none of them.
"""

import ctypes
import functools
import io
import math
import mmap
import os
import weakref
from typing import Any

import numpy as np
from etils import epath

from merit_jax.workdir.paths import is_remote

SMALL = 2**16
"""Bytes of a file up to which it is read: a mapping of its own is no gain, and the system limits their number too."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_FAILED = ctypes.c_void_p(-1).value


def read_array(path: epath.Path) -> np.ndarray:
    """Reads an .npy file, which must not be written to afterwards; one from a bucket is read whole.

    Raises:
        OSError: It cannot be opened, or mapped.
        ValueError: It is damaged.
    """
    if is_remote(path):
        return _whole(io.BytesIO(path.read_bytes()))
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return _whole(file) if size <= SMALL else _mapped(file, size)


def read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads the header of an .npy file: (shape, whether in Fortran's order, type); the data follows.

    Raises:
        ValueError: There is none, or of an unknown version.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"unknown version {version} of the .npy format")
    return _HEADERS[version](file)


def _whole(file: Any) -> np.ndarray:
    array = np.load(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("the file goes on after its array")
    return array


def _mapped(file: Any, size: int) -> np.ndarray:
    shape, fortran, dtype = read_header(file)
    start = file.tell()
    if dtype.hasobject or start + dtype.itemsize * math.prod(shape) != size:
        raise ValueError(f"{size} bytes, which do not hold {dtype} of shape {shape}")
    address = _libc().mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    memory = (ctypes.c_char * size).from_address(address)
    weakref.finalize(memory, _libc().munmap, address, size).atexit = False
    array = np.frombuffer(memoryview(memory), dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    array.flags.writeable = False
    return array


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc
