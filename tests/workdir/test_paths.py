"""Where a run lies."""

import pytest
from etils import epath

from merit_jax.workdir.paths import Workdir


def test_a_relative_workdir_is_made_absolute_and_a_bucket_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(Workdir.at("runs/a").root) == str(tmp_path / "runs" / "a")
    monkeypatch.setattr(epath.Path("gs://b").__class__, "mkdir", lambda *_, **__: None)
    assert str(Workdir.at("gs://bucket/a").root) == "gs://bucket/a"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory") as caught:
        Workdir.at(tmp_path / "file" / "run")
    assert str(tmp_path / "file") in str(caught.value)
