"""Turns a row's references to images into content parts with a checked path, or with the image's bytes.

Nothing is opened here, and nothing is downloaded.
"""

import base64
import binascii
import functools
import hashlib
import os
import posixpath
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from merit_jax.core.types import Image, Record
from merit_jax.data.containment import is_inside
from merit_jax.data.readers import text_field
from merit_jax.workdir.artifacts import write_bytes
from merit_jax.workdir.paths import is_remote

MARKER = "<image>"
PLACE = re.compile(r"\n?<image>\n?")

IMAGES_IN_BASE64 = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkqAA", "TU0AKg", "Qk")
"""How PNG, JPEG, GIF, WebP, TIFF and BMP begin in base64."""
BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}=*\s*")
LONGEST_PATH, LONGEST_NAME = 4096, 255

IMAGE_KEYS = ("image", "path", "url", "image_url", "bytes")
"""Keys of a content part that may hold its image."""

Part = Mapping[str, Any]


def image_part(value: Any, root: str, where: str) -> Image:
    """Reads one image of a row.

    Args:
        value: A path below `root` (relative to it or absolute), a file:// or data: URL, base64, bytes, or an object with one of
            these as its `bytes`, `path` or `url`.
        root: The folder of the images.
        where: "FILE:LINE", for error messages.

    Raises:
        ValueError: It is none of these, a web address, or leaves `root`.
    """
    if isinstance(value, Mapping):
        keys = sorted(map(str, value))
        value = next((value[key] for key in ("bytes", "path", "url") if value.get(key) is not None), None)
        if value is None:
            raise ValueError(
                f"{where}: an image needs one of bytes, path or url, got the keys {keys!r:.80}; name the file"
            )
    if isinstance(value, bytes):
        return {"type": "image", "bytes": value}
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: an image must be a path or bytes, got {value!r:.80}; name the file")
    if value.startswith("data:"):
        return {"type": "image", "bytes": _decode(value, where)}
    if value.startswith(("http://", "https://")):
        raise ValueError(f"{where}: image {value!r:.80} is on the web; nothing is downloaded: name a local file")
    if value.startswith(IMAGES_IN_BASE64) and BASE64.fullmatch(value):
        return {"type": "image", "bytes": _decode(f"data:;base64,{value}", where)}
    if len(value) > LONGEST_PATH or max(map(len, value.split("/"))) > LONGEST_NAME:
        raise ValueError(
            f"{where}: image {value!r:.80} of {len(value):,} characters is no path, and as base64 no known image; name a file, "
            "or write data:image/png;base64,..."
        )
    if value.startswith("file://"):
        value = urllib.parse.unquote(value.removeprefix("file://"))
    return {"type": "image", "path": _below(value, root, where)}


def image_parts(values: Any, root: str, where: str) -> list[Image]:
    """Reads the images of a row: one (see `image_part`), a list of them, or none."""
    if values is None or (isinstance(values, str | list | tuple) and not values):
        return []
    return [image_part(value, root, where) for value in (values if isinstance(values, list | tuple) else [values])]


def place_images(messages: Sequence[Mapping[str, Any]], images: Sequence[Image], where: str) -> list[Mapping[str, Any]]:
    """Puts images at the `<image>` markers of the user's texts; a line break on either side of a marker is dropped.

    Raises:
        ValueError: There are more markers than images, or fewer.
    """
    markers = sum(message["content"].count(MARKER) for message in messages if message["role"] == "user")
    if markers != len(images):
        raise ValueError(
            f"{where}: {len(images)} images for {markers} {MARKER} markers in the user's turns; write one marker per image"
        )
    rest = iter(images)
    return [{**m, "content": _split(m["content"], rest)} if m["role"] == "user" else m for m in messages]


def front_images(messages: Sequence[Mapping[str, Any]], images: Sequence[Image], where: str) -> list[Mapping[str, Any]]:
    """Puts all images before the user's first text.

    Raises:
        ValueError: There are images, and no user's turn.
    """
    if not images:
        return list(messages)
    first = next((index for index, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None:
        raise ValueError(
            f"{where}: {len(images)} images and no turn of a user to put them in; add the turn or delete the row"
        )
    content = [*images, *_text(messages[first]["content"])]
    return [{**m, "content": content} if index == first else m for index, m in enumerate(messages)]


def content_parts(parts: Sequence[Any], rest: Iterator[Image], root: str, where: str) -> str | list[Part]:
    """Reads OpenAI's content parts; texts alone become one text.

    Args:
        parts: The parts as they are in the file.
        rest: The images that parts without one stand for, which are taken from it.
        root: The folder of the images.
        where: "FILE:LINE", for error messages.

    Raises:
        ValueError: A part is of another type, names no image where there is none left, or its image is refused.
    """
    found = [_part(part, rest, root, where) for part in parts]
    if all(part["type"] == "text" for part in found):
        return "".join(part["text"] for part in found)
    return found


def unpack(record: Record, folder: epath.Path) -> Record:
    """Writes the record's embedded images into a folder, once each and named after their sha256; paths take their place."""
    messages = []
    for message in record.messages:
        if not isinstance(message["content"], str):
            message = {**message, "content": [_unpacked(part, folder) for part in message["content"]]}
        messages.append(message)
    return record._replace(messages=tuple(messages))


def _part(part: Any, rest: Iterator[Image], root: str, where: str) -> Part:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return {"type": "text", "text": text_field(part, "text", where)}
    if kind not in ("image", "image_url"):
        raise ValueError(f"{where}: content part {part!r:.80}; expected one of type 'text', 'image' or 'image_url'")
    if isinstance(part.get("source"), dict):  # Anthropic's {"type": "base64", "data": ...}
        part = {**part, "image": _inline(part["source"], where)}
    value = next((part[key] for key in IMAGE_KEYS if part.get(key) is not None), None)
    if kind == "image_url" and isinstance(value, dict):
        value = value.get("url")
    if value is not None or kind == "image_url":
        return image_part(value, root, where)
    image = next(rest, None)
    if image is None:
        raise ValueError(f"{where}: a content part of type 'image' names no image; set its `image`, `path` or `url`")
    return image


def _inline(source: Mapping[str, Any], where: str) -> Any:
    if source.get("type") == "base64" and isinstance(source.get("data"), str):
        return f"data:;base64,{source['data']}"
    if isinstance(source.get("url"), str):
        return source["url"]
    raise ValueError(f"{where}: an image's `source` is {source!r:.80}; expected base64 `data` or a `url`")


def _unpacked(part: Part, folder: epath.Path) -> Part:
    if "bytes" not in part:
        return part
    path = folder / hashlib.sha256(part["bytes"]).hexdigest()
    if not path.exists() or path.read_bytes() != part["bytes"]:
        write_bytes(path, part["bytes"])
    return {"type": "image", "path": str(path)}


def _split(text: str, images: Iterator[Image]) -> str | list[Part]:
    pieces = PLACE.split(text)
    if len(pieces) == 1:
        return text
    parts = _text(pieces[0])
    for piece in pieces[1:]:
        parts += [next(images), *_text(piece)]
    return parts


def _text(piece: str) -> list[Part]:
    return [{"type": "text", "text": piece}] if piece.strip() else []


def _decode(url: str, where: str) -> bytes:
    head, comma, data = url.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError("it does not begin with data:image/...;base64,")
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{where}: image {url!r:.80} is no base64 data URL ({error}); encode it again") from None


def _below(value: str, root: str, where: str) -> str:
    """The absolute path of an image, symbolic links resolved.

    Raises:
        ValueError: It is not below the root.
    """
    if is_remote(root) or is_remote(value):
        scheme, _, folder = root.partition("://")
        path = value if is_remote(value) else posixpath.join(root, value)
        other, _, rest = path.partition("://")
        base, path = f"{scheme}://{posixpath.normpath(folder)}", f"{other}://{posixpath.normpath(rest)}"
    else:
        base = _real(root)
        try:
            path = os.path.realpath(os.path.join(base, value))
        except ValueError as error:
            raise ValueError(f"{where}: image {value!r:.80} is no path ({error}); name the file") from None
        if is_inside(path, root):
            return path
    if not path.startswith(base.rstrip("/") + "/"):
        raise ValueError(
            f"{where}: image {value!r:.80} is {path:.200}, outside the image root {base}; move it below, or set `image_root` in "
            "the manifest to a folder that holds it, links resolved"
        )
    return path


@functools.lru_cache(maxsize=64)
def _real(folder: str) -> str:
    return os.path.realpath(folder)
