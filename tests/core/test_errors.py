"""An error of the machine is told from one of a file's content, however many libraries have passed it on."""

import errno
import os

import pytest
from safetensors import SafetensorError

from merit_jax.core.errors import machine_error, raise_if_of_machine
from merit_jax.models.io import errors as of_models

MACHINE = (
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.EACCES,
    errno.ENOSPC,
    errno.ETIMEDOUT,
    errno.EROFS,
)
CONTENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP)


def system(code):
    return OSError(code, os.strerror(code))


def wrapped(error):
    try:
        try:
            raise error
        except type(error):
            raise ValueError("cannot be read") from None
    except ValueError as found:
        return found


def rust(code):
    return SafetensorError(f"Error while reading file: {os.strerror(code)} (os error {code})")


@pytest.mark.parametrize("judge", [raise_if_of_machine, of_models.raise_if_of_machine])
@pytest.mark.parametrize("form", [system, lambda code: wrapped(system(code)), rust])
@pytest.mark.parametrize("code", MACHINE)
def test_an_error_of_the_machine_keeps_its_number_and_gets_the_file(judge, form, code):
    with pytest.raises(OSError, match=r"a\.json") as caught:
        judge(form(code), "a.json")
    assert caught.value.errno == code
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("judge", [raise_if_of_machine, of_models.raise_if_of_machine])
@pytest.mark.parametrize(
    "error",
    [*map(system, CONTENT), *map(rust, CONTENT), OSError("broken PNG file"), ValueError("no JSON"), KeyError("a")],
)
def test_an_error_of_the_content_is_left_to_the_reader(judge, error):
    judge(error, "a.json")


@pytest.mark.parametrize("judge", [raise_if_of_machine, of_models.raise_if_of_machine])
def test_want_of_memory_is_told_as_such(judge):
    with pytest.raises(MemoryError, match=r"a\.json: out of memory"):
        judge(wrapped(MemoryError()), "a.json")


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 68719476736 bytes", MemoryError, None),
        ('Error opening "x": Too many open files [source locations=...]', OSError, errno.EMFILE),
        ("Error reading local file: Stale file handle", OSError, errno.ESTALE),
        ("IOError: [errno 5] Input/output error", OSError, errno.EIO),
        ("NOT_FOUND: No such file or directory", None, None),
        ("DATA_LOSS: crc32c mismatch", None, None),
    ],
)
def test_the_text_of_c_libraries_is_searched(text, kind, code):
    found = machine_error(ValueError(text), "d")
    assert (type(found) if found is None or kind is MemoryError else OSError) is (kind or type(None))
    assert getattr(found, "errno", None) == code
