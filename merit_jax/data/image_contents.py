"""Digests of the images of a dataset by their content, so that a changed image is another dataset."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from merit_jax.core.types import Image
from merit_jax.workdir.artifacts import INPUTS, read_json, write_json
from merit_jax.workdir.checksums import Stamp, file_checksum, stamp
from merit_jax.workdir.paths import absolute, is_remote

SUMS = "image_checksums.json"
"""File of a dataset's token cache: the sha256 of each of its images with the stamp that the image had then, and the digest of
the images that its tokens were made from."""

UNPACKED = "images"
"""Folder of the token cache with the images that dataset files embed, each named after its sha256."""

SETTLED_NS = 2 * 10**9
"""Nanoseconds after its last change from which on a file's stamp is trusted: clocks of file systems are coarse."""

READERS = 16
"""Images that are read at a time."""


class DamagedImageError(ValueError):
    """An unpacked image that is missing, or has another content than its name says."""


class ImageContents:
    """Checksums of the images of a dataset; a file is read again only when its stamp has changed.

    Args:
        folder: The dataset's token cache.

    Attributes:
        tokenised: The digest of the images that the tokens in the folder were made from; "" if it is not known.
    """

    def __init__(self, folder: epath.Path) -> None:
        self._path, self._unpacked = folder / SUMS, f"{absolute(folder.parent) / UNPACKED}/"
        self._new = False
        self._known, self.tokenised = _read(self._path)

    def digest(self, images: Iterable[Sequence[Image]]) -> str:
        """Returns a sha256 over the contents of the images of examples, in order; "" if there are none.

        Raises:
            DamagedImageError: An unpacked image is missing or damaged.
            ValueError: An image is missing.
        """
        rows = [tuple(row) for row in images]
        paths = list(dict.fromkeys(image["path"] for row in rows for image in row if "path" in image))
        with ThreadPoolExecutor(READERS) as pool:
            found = dict(zip(paths, pool.map(self._checksum, paths), strict=True))
        sums = [
            [found[i["path"]] if "path" in i else hashlib.sha256(i["bytes"]).hexdigest() for i in row] for row in rows
        ]
        return hashlib.sha256(repr(sums).encode()).hexdigest() if any(sums) else ""

    def save(self, tokenised: str = "") -> None:
        """Keeps new checksums for the next run, and the digest of the images that the tokens were made from if it is given."""
        if tokenised not in ("", self.tokenised):
            self.tokenised, self._new = tokenised, True
        if self._new:
            files = {path: list(known) for path, known in self._known.items()}
            write_json(self._path, {INPUTS: {}, "files": files, "tokenised": self.tokenised})
            self._new = False

    def _checksum(self, path: str) -> str:
        name = path.removeprefix(self._unpacked) if path.startswith(self._unpacked) else None
        try:
            now = stamp(path)
            known = self._known.get(path)
            sha256 = known[1] if known and known[0] == now else file_checksum(epath.Path(path))
        except FileNotFoundError:
            kind = ValueError if name is None else DamagedImageError
            raise kind(f"image {path} is missing; put it back, or take its row out of the dataset") from None
        if name not in (None, sha256):
            raise DamagedImageError(f"image {path} has another content than was unpacked; delete it")
        if (known is None or known[0] != now) and (is_remote(path) or max(now[1:3]) < time.time_ns() - SETTLED_NS):
            self._known[path], self._new = (now, sha256), True
        return sha256


def _read(path: epath.Path) -> tuple[dict[str, tuple[Stamp, str]], str]:
    """Reads what is kept; nothing where it is damaged, for it can be computed anew."""
    try:
        kept = read_json(path) if path.exists() else {"files": {}}
        files = {image: (tuple(stamped), sha256) for image, (stamped, sha256) in kept["files"].items()}
        return files, str(kept.get("tokenised", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}, ""
