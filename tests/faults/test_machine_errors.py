"""Whatever the machine cannot do while a file is opened is told as that, at every reader; no sound file is called damaged."""

import errno
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image

from merit_jax.core.types import Example
from merit_jax.data.group_by import read_groups
from merit_jax.data.manifest_parser import load_manifest
from merit_jax.data.readers import files_digest, read_rows
from merit_jax.data.token_cache import ARRAYS, IMAGES, SUMS, as_table, load_table, save_table
from merit_jax.gradients.store import GradientStore, NewRow
from merit_jax.models.io import hf_folder
from merit_jax.models.io.gguf import open_reader
from merit_jax.models.processing.image_loading import image_size, open_image
from merit_jax.training.metrics_log import read_metrics
from merit_jax.workdir.artifacts import is_current, read_arrays, read_inputs, read_json, write_arrays, write_json
from merit_jax.workdir.checksums import file_checksums, verify_checksums

CODES = ("EIO", "ESTALE", "EMFILE", "ENFILE", "EACCES", "ENOSPC", "ETIMEDOUT", "ENOMEM")

refused: dict[str, BaseException | str] = {}


def _refuse(event, arguments):
    """An audit hook, which no process can remove: it strikes only the file that `refused` names."""
    opened = event == "open" and refused and not isinstance(arguments[0], int)
    if opened and os.fsdecode(arguments[0]) == refused["path"]:
        raise refused["error"]


sys.addaudithook(_refuse)


def rows(path):
    return [row for _, row in read_rows(str(path))]


def table(folder):
    save_table(as_table([Example(np.arange(3, dtype=np.int32), np.ones(3, bool))]), epath.Path(folder))


def gradients(folder):
    row = NewRow("d", "digest", np.ones(3, np.float32), {}, 0)
    GradientStore(epath.Path(folder)).write({"a": 1}, row)


def parquet(path):
    writer = pytest.importorskip("pyarrow.parquet")
    writer.write_table(pytest.importorskip("pyarrow").table({"a": [1]}), path)


def lines(path):
    path.write_text('{"a": "b"}\n')


def gguf(path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def image(path):
    Image.new("RGB", (3, 2)).save(path)


READERS = {
    "JSON artifact": (
        "a.json",
        lambda p: write_json(epath.Path(p), {"inputs": {}}),
        lambda p: read_json(epath.Path(p)),
    ),
    "inputs": (
        "a.json",
        lambda p: write_json(epath.Path(p), {"inputs": {}}),
        lambda p: is_current(epath.Path(p), {}, overwrite=True),
    ),
    "arrays": ("a.npz", lambda p: write_arrays(epath.Path(p), {}, a=np.ones(3)), lambda p: read_arrays(epath.Path(p))),
    "inputs of arrays": ("a.npz", lambda p: write_arrays(epath.Path(p), {}), lambda p: read_inputs(epath.Path(p))),
    **{
        f"token cache: {name}": (name, lambda p: table(p.parent), lambda p: load_table(epath.Path(p.parent)))
        for name in (*(f"{name}.npy" for name in ARRAYS), IMAGES, SUMS)
    },
    "gradient": (
        "3fa5834dc920d385.npy",
        lambda p: gradients(p.parent),
        lambda p: GradientStore(epath.Path(p.parent)).rows(["d"]),
    ),
    "index of gradients": (
        "index.json",
        lambda p: gradients(p.parent),
        lambda p: GradientStore(epath.Path(p.parent)).rows(["d"]),
    ),
    "log": ("m.jsonl", lambda p: p.write_text('{"step": 1}\n'), lambda p: read_metrics(epath.Path(p))),
    "checksums": ("f/a", lambda p: p.write_text("x"), lambda p: verify_checksums(epath.Path(p.parent), {})),
    "file checksums": ("f/a", lambda p: p.write_text("x"), lambda p: file_checksums(epath.Path(p.parent))),
    "JSON Lines": ("a.jsonl", lines, rows),
    "JSON": ("a.json", lambda p: p.write_text('[{"a": 1}]'), rows),
    "parquet": ("a.parquet", parquet, rows),
    "digest": ("a.jsonl", lines, lambda p: files_digest([str(p)])),
    "groups": ("a.jsonl", lines, lambda p: read_groups((str(p),), "a", lambda _: None)),
    "manifest": ("m.json", lambda p: p.write_text('{"a": {"file_name": "a.jsonl"}}'), lambda p: load_manifest(str(p))),
    "YAML manifest": ("m.yaml", lambda p: p.write_text("a: {file_name: a.jsonl}"), lambda p: load_manifest(str(p))),
    "config of a model": ("config.json", lambda p: p.write_text("{}"), hf_folder.read_json),
    "GGUF": ("a.gguf", gguf, open_reader),
    "image": ("a.png", image, lambda p: open_image({"type": "image", "path": str(p)})),
    "size of an image": ("a.png", image, lambda p: image_size({"type": "image", "path": str(p)})),
}


@pytest.fixture
def strike():
    def strike(path, error):
        refused.update(path=str(path), error=error)

    yield strike
    refused.clear()


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    name, make, read = READERS[request.param]
    path = Path(tmp_path) / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    assert path.exists()
    return path, read


@pytest.mark.parametrize("code", CODES)
def test_an_error_of_the_machine_is_told_as_what_it_is(reader, strike, code):
    path, read = reader
    number = getattr(errno, code)
    strike(path, OSError(number, os.strerror(number)))
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        read(path)
    assert caught.value.errno == number
    assert path.name in str(caught.value) or caught.value.filename is None
    assert "delete" not in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_want_of_memory_is_told_as_what_it_is(reader, strike):
    path, read = reader
    strike(path, MemoryError())
    with pytest.raises(MemoryError):
        read(path)


def test_a_folder_that_may_not_be_looked_into_is_not_an_absent_artifact(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    write_json(epath.Path(tmp_path / "a.json"), {"inputs": {}})
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(PermissionError):
        is_current(epath.Path(tmp_path / "a.json"), {}, overwrite=False)


def test_a_header_that_asks_for_more_memory_than_there_is_is_damage(tmp_path):
    path = epath.Path(tmp_path / "a.npz")
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", member)
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        read_arrays(path)
