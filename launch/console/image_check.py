"""Opens the images that the records of a mixture name."""

import hashlib
from collections.abc import Callable

from merit_jax.core.types import Image, ImageReader, Record
from merit_jax.data.image_roots import image_root_hint
from merit_jax.data.manifest import Entry
from merit_jax.data.message_texts import images_of
from merit_jax.data.records import image_roots
from merit_jax.data.rows import OnError, RowError
from merit_jax.models.processing.image_loading import is_animated


class ImageCheck:
    """Opens every image that a record names, once.

    Attributes:
        reader: The model's reader of images; None for a text model, which opens none.
    """

    def __init__(self, reader: ImageReader | None):
        self.reader = reader
        self._good: dict[str | bytes, bool] = {}
        self._animated: set[str | bytes] = set()

    def of(self, entry: Entry, on_error: OnError, animated: set[str | bytes]) -> Callable[[Record], bool]:
        """Returns a function that says whether all images of a record of an entry are good.

        Args:
            entry: The dataset.
            on_error: Called with the error of each bad image.
            animated: Set to which images of several frames are added.
        """

        def is_good(record: Record) -> bool:
            good = [self._is_good(image, record, entry, on_error) for image in images_of(record.messages)]
            animated.update(self._animated & {_key(image) for image in images_of(record.messages)})
            return all(good)

        return is_good

    def _is_good(self, image: Image, record: Record, entry: Entry, on_error: OnError) -> bool:
        key = _key(image)
        if self.reader is not None and key not in self._good:
            try:
                self.reader.check(image)
                self._good[key] = True
                if is_animated(image):
                    self._animated.add(key)
            except ValueError as error:
                on_error(RowError.of(error, record.where, image_root_hint(image, image_roots(entry))))
                self._good[key] = False
        return self._good.get(key, True)


def _key(image: Image) -> str | bytes:
    return image["path"] if "path" in image else hashlib.sha256(image["bytes"]).digest()
