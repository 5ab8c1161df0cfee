"""What the devices cannot do is refused when a run is opened, before its first stage."""

import pytest

from merit_jax.launch.wiring import open_run
from tests.support import world


def test_cudnn_without_a_gpu_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(
        ValueError, match=r"model\.attention = 'cudnn' needs an NVIDIA GPU, and the devices are: cpu; use 'auto'"
    ):
        world.run(tmp_path, "run", **{"model.attention": "cudnn"})
    assert not list((tmp_path / "run").glob("*")) if (tmp_path / "run").exists() else True


def test_cudnn_in_float32_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(open_run.jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match=r"has no float32; set model\.dtype to 'bfloat16'"):
        open_run.open_model(str(tmp_path / "theta0"), dtype="float32", attention="cudnn")
