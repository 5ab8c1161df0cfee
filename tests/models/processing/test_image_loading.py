"""Images are what transformers' `load_image` makes of them; what is no image says so; the cache keeps what was used last."""

import itertools
import os
import pickle
import re
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from merit_jax.models.processing.image_loading import PixelCache, image_size, is_animated, open_image
from tests.support.tiny_vision import picture

SAVED = {
    "png": ("RGB", "RGBA", "L", "LA", "P", "1"),
    "jpeg": ("RGB", "L", "CMYK"),
    "gif": ("P",),
    "webp": ("RGBA",),
}
TURNED = list(itertools.product(("png", "jpeg", "webp", "tiff"), (1, 2, 3, 6, 8)))
MODES = [(suffix, mode) for suffix, modes in SAVED.items() for mode in modes]


def reference(path):
    return {"type": "image", "path": str(path)}


def save(path, mode, orientation=None):
    """A picture of 5 rows and 9 columns."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 9, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    steps = {"CMYK": ("RGB", "CMYK")}.get(mode, (mode,))
    for step in steps:
        image = image.convert(step)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation else {}))
    return path


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # load_image leaves a GIF's file open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("suffix", "mode"), MODES)
def test_pixels_are_those_of_transformers(tmp_path, suffix, mode):
    from transformers.image_utils import load_image

    path = save(tmp_path / f"a.{suffix}", mode)
    expected = np.asarray(load_image(str(path)))
    for image in (reference(path), {"type": "image", "bytes": path.read_bytes()}):
        np.testing.assert_array_equal(np.asarray(open_image(image)), expected)
        assert image_size(image) == (5, 9)


GREYS = [0, 128, 257, 32768, 65407, 65535]


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm", "jp2"])
def test_grey_of_16_bits_is_scaled_by_its_range(tmp_path, suffix):
    if suffix == "jp2":
        pytest.importorskip("PIL.Jpeg2KImagePlugin")
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.array([GREYS], np.uint16)).save(path, **({"irreversible": False} if suffix == "jp2" else {}))
    pixels = np.asarray(open_image(reference(path)))
    np.testing.assert_array_equal(pixels, np.array([[0, 0, 1, 128, 255, 255]], np.uint8)[..., None].repeat(3, -1))


def test_grey_of_16_bits_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([GREYS], np.uint16)).save(tmp_path / "a.png", exif=exif)
    assert np.asarray(open_image(reference(tmp_path / "a.png")))[:, 0, 0].tolist() == [0, 0, 1, 128, 255, 255]


@pytest.mark.parametrize(("kind", "mode"), [(np.float32, "F"), (np.int32, "I")])
def test_a_mode_without_a_range_is_refused_by_name(tmp_path, kind, mode):
    Image.fromarray(np.ones((2, 3), kind)).save(tmp_path / "a.tiff")
    reason = rf"a.tiff: pixels of mode {mode} have no fixed range or colours; convert it to 8-bit RGB"
    for read in (open_image, image_size):
        with pytest.raises(ValueError, match=reason):
            read(reference(tmp_path / "a.tiff"))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_several_frames_the_first_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "green", "blue")]
    path = tmp_path / f"a.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **lossless)
    assert is_animated(reference(path))
    np.testing.assert_array_equal(np.asarray(open_image(reference(path))), np.asarray(frames[0]))
    frames[0].save(path, **lossless)
    assert not is_animated(reference(path))


@pytest.mark.parametrize(("suffix", "orientation"), TURNED)
def test_exif_turns_an_image_as_transformers_does(tmp_path, suffix, orientation):
    from transformers.image_utils import load_image

    path = save(tmp_path / f"a.{suffix}", "RGB", orientation)
    expected = np.asarray(load_image(str(path)))
    np.testing.assert_array_equal(np.asarray(open_image(reference(path))), expected)
    assert image_size(reference(path)) == expected.shape[:2]
    if suffix != "tiff":
        assert image_size(reference(path)) == ((9, 5) if orientation in (6, 8) else (5, 9))


def test_a_png_that_ends_with_its_orientation_is_turned(tmp_path):
    data = save(tmp_path / "a.png", "RGB", orientation=6).read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    moved = {"type": "image", "bytes": data[:start] + data[end:last] + data[start:end] + data[last:]}
    assert open_image(moved).size == (5, 9)
    assert image_size(moved) == (9, 5)


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp"])
def test_the_size_is_read_without_decoding(tmp_path, suffix, monkeypatch):
    path = save(tmp_path / f"a.{suffix}", "RGB", orientation=6)

    def refuse(self):
        raise AssertionError("decoded")

    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    assert image_size(reference(path)) == (9, 5)


def test_the_size_of_a_file_written_anew_is_its_new_size(tmp_path):
    for height in (4, 40):
        picture(tmp_path / "a.png", height, 8)
        assert image_size(reference(tmp_path / "a.png")) == (height, 8)


def bad(tmp_path, case):
    good = picture(tmp_path / "good.png", 40, 40).read_bytes()
    jpeg = picture(tmp_path / "good.jpeg", 40, 40).read_bytes()
    content = {
        "empty.png": b"",
        "cut.png": good[: len(good) // 2],
        "cut.jpeg": jpeg[: len(jpeg) // 2],
        "head.png": good[:20],
        "text.png": b"not a picture",
        "flipped.png": good[:60] + bytes(255 - byte for byte in good[60:200]) + good[200:],
    }
    path = tmp_path / case
    if case in content:
        path.write_bytes(content[case])
    if case == "folder.png":
        path.mkdir()
    return path


BAD = {
    "gone.png": "no such image; correct the path or delete the record",
    "good.png/below.png": "no such image; correct the path",
    "folder.png": "a folder, not an image; correct the path",
    "empty.png": "the image has 0 bytes; write the file again or delete the record",
    "cut.png": r"damaged or truncated image (OSError",
    "cut.jpeg": r"damaged or truncated image (OSError: image file is truncated",
    "head.png": "damaged or truncated image",
    "text.png": "not an image that Pillow can read; convert it to PNG or JPEG",
    "flipped.png": "damaged or truncated image",
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_is_named_with_the_reason(tmp_path, case):
    path = bad(tmp_path, case)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {BAD[case]}")):
        open_image(reference(path))


def test_embedded_bytes_are_named_by_their_digest():
    with pytest.raises(ValueError, match=r"embedded image \(4 bytes, sha256 9f86d081884c\): not an image"):
        image_size({"type": "image", "bytes": b"test"})


def test_the_cache_drops_what_was_used_longest_ago(tmp_path):
    images = [reference(save(tmp_path / f"{name}.png", "RGB")) for name in "abc"]
    processed = []

    def process(image):
        processed.append(image.size)
        return np.asarray(image)

    cache = PixelCache(process, max_bytes=2 * 5 * 9 * 3)
    for index in (0, 1, 0, 2, 0):
        np.testing.assert_array_equal(cache(images[index]), np.asarray(open_image(images[index])))
    assert len(processed) == 3
    cache(images[1])
    assert len(processed) == 4


def test_an_image_larger_than_the_cache_is_not_kept(tmp_path):
    image, made = reference(save(tmp_path / "a.png", "RGB")), []
    cache = PixelCache(lambda image: made.append(0) or np.asarray(image), max_bytes=10)
    cache(image), cache(image)
    assert len(made) == 2


def test_the_cache_serves_threads_and_starts_empty_in_a_copy(tmp_path):
    images = [reference(save(tmp_path / f"{number}.png", "RGB")) for number in range(4)]
    cache = PixelCache(np.asarray, max_bytes=2 * 5 * 9 * 3)
    expected, wrong = np.asarray(open_image(images[0])), []

    def read():
        wrong.extend(image for image in images * 20 if not np.array_equal(cache(image), expected))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    copy = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(copy(images[0]), expected)


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.png", 40, 50)
    monkeypatch.setattr("merit_jax.models.processing.image_loading.MAX_PIXELS", 1999)
    for read in (open_image, image_size):
        with pytest.raises(ValueError, match=r"a\.png: too large \(50 x 40 pixels, at most 1999 are decoded\)"):
            read(reference(path))


def test_a_header_that_lies_about_the_size_costs_nothing(tmp_path):
    data = bytearray(picture(tmp_path / "a.png", 40, 40).read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(ValueError, match="too large"):
        open_image({"type": "image", "bytes": bytes(data)})


def test_postscript_is_no_image_for_it_would_start_another_program(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.eps").read_bytes())
    with pytest.raises(ValueError, match=r"a\.png: not an image that Pillow can read"):
        image_size(reference(tmp_path / "a.png"))


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match=r"pipe\.png: the image cannot be opened \(it is no regular file\)"):
        open_image(reference(tmp_path / "pipe.png"))
