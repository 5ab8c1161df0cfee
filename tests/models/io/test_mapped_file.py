"""Tensors are read where they lie in a file: the same as the library reads, and never those of another file."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file

from merit_jax.models.io.mapped_file import MappedFile
from merit_jax.models.io.safetensors import STORED, TensorSpec, read_specs, write

SHAPES = ((), (0, 4), (3, 5))


@pytest.fixture
def file(tmp_path):
    specs = [TensorSpec(f"{code}{n}", dtype, shape) for code, dtype in STORED.items() for n, shape in enumerate(SHAPES)]
    rng = np.random.default_rng(0)
    tensors = (rng.integers(0, 2, spec.shape).astype(spec.dtype) for spec in specs)
    write(tmp_path / "model.safetensors", specs, tensors)
    return tmp_path / "model.safetensors"


def test_every_type_and_shape_is_viewed_as_the_library_reads_it(file):
    mapped, read, specs = MappedFile(file), load_file(file), read_specs(file, STORED)
    assert len(specs) == len(STORED) * len(SHAPES)
    for key, spec in specs.items():
        view = mapped.view(spec)
        assert view.dtype == read[key].dtype
        np.testing.assert_array_equal(view, read[key], strict=True)
        assert not (spec.nbytes and view.flags.writeable)


def test_a_file_that_is_written_again_is_refused(file):
    mapped, (spec, *_) = MappedFile(file), read_specs(file, STORED).values()
    held = mapped.view(spec)
    (file.parent / "other").write_bytes(file.read_bytes())
    os.replace(file.parent / "other", file)
    with pytest.raises(
        ValueError, match=r"model\.safetensors: changed while its tensors were read; run the command again"
    ):
        mapped.view(spec)
    np.testing.assert_array_equal(held, load_file(file)[spec.key])


def test_a_file_that_is_cut_off_is_refused(file):
    mapped, spec = MappedFile(file), read_specs(file, STORED)["BOOL2"]
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(ValueError, match="changed while"):
        mapped.view(spec)
