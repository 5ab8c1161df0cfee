"""Datasets with the same examples, whatever their files are called, in whichever order or format they have them."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from etils import epath

from merit_jax.core.types import Example, Image
from merit_jax.workdir.checksums import file_checksum


def content_digest(examples: Iterable[Example]) -> str:
    """Returns a sha256, in hex, of the examples of a dataset: their tokens, supervised ones and images, in any order.

    Images count by their bytes; those that are files are read.

    Raises:
        FileNotFoundError: An image's file does not exist.

    Examples:
        >>> import numpy as np
        >>> one = Example(np.array([5, 6], np.int32), np.array([False, True]))
        >>> two = Example(np.array([7, 8], np.int32), np.array([False, True]))
        >>> content_digest([one, two]) == content_digest([two, one])
        True
        >>> content_digest([one]) == content_digest([one, one])
        False
    """
    rows = sorted(_row_digest(example) for example in examples)
    return hashlib.sha256(b"".join(rows)).hexdigest()


def _row_digest(example: Example) -> bytes:
    row = hashlib.sha256(len(example.tokens).to_bytes(8, "little"))
    for part in (example.tokens.tobytes(), example.supervised.tobytes(), *map(_image_digest, example.images)):
        row.update(part)
    return row.digest()


def _image_digest(image: Image) -> bytes:
    if "path" in image:
        return bytes.fromhex(_file_digest(image["path"]))
    return hashlib.sha256(image["bytes"]).digest()


@lru_cache(maxsize=1 << 16)
def _file_digest(path: str) -> str:
    return file_checksum(epath.Path(path))
