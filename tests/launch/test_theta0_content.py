"""theta0 is what its files hold: not their sizes and times, nor the weights without the config."""

import json
import os

import pytest

from merit_jax.launch.wiring import open_run
from tests.support import world


@pytest.fixture
def root(tmp_path):
    world.checkpoint(tmp_path / "theta0", layers=1)
    return tmp_path


def fingerprint(root):
    return world.run(root, "run").theta0_fingerprint


def test_weights_of_the_same_size_and_time_are_another_theta0(root):
    before, file = fingerprint(root), root / "theta0" / "model.safetensors"
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[-3] ^= 64
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert fingerprint(root) != before


@pytest.mark.parametrize(
    ("key", "value", "same"), [("rope_theta", 500.0, False), ("rms_norm_eps", 1e-5, False), ("use_cache", False, True)]
)
def test_a_config_that_computes_something_else_is_another_theta0(root, key, value, same):
    before, file = fingerprint(root), root / "theta0" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    assert (fingerprint(root) == before) == same


def test_the_fingerprint_does_not_depend_on_the_folder_and_is_kept_while_nothing_is_written(root, monkeypatch):
    before = fingerprint(root)
    monkeypatch.setattr("merit_jax.core.tree.fingerprint", lambda params: pytest.fail("theta0 is read again"))
    assert fingerprint(root) == before
    monkeypatch.undo()
    (root / "theta0").rename(root / "elsewhere")
    (root / "theta0").symlink_to(root / "elsewhere")
    assert fingerprint(root) == before


def test_the_type_of_computation_is_the_one_that_is_opened(root):
    assert open_run.open_model(str(root / "theta0"), dtype="bfloat16").dtype == "bfloat16"
    assert world.run(root, "run", **{"model.dtype": "bfloat16"}).compute_dtype == "bfloat16"


def test_a_checkpoint_that_is_written_while_it_is_read_is_refused(root):
    run = world.run(root, "run")
    (root / "theta0" / "config.json").write_text((root / "theta0" / "config.json").read_text() + " ")
    with pytest.raises(ValueError, match=r"theta0/config\.json was written while the run read it; start again"):
        _ = run.params
