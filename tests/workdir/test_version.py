"""A workdir that an earlier version began is refused in one sentence, and nothing in it is touched."""

import json
from pathlib import Path

import pytest

from merit_jax.launch.wiring import open_run, saved_config
from merit_jax.workdir.paths import Workdir
from merit_jax.workdir.version import refuse_older
from tests.support import world


@pytest.fixture
def older(finished, tmp_path):
    """A copy of a finished run with the keys of version 0.1."""
    run = world.copied(finished, tmp_path)
    config = json.loads(run.config.to_json_best_effort())
    config["gradients"]["vmap"] = config["gradients"].pop("datasets_per_step")
    run.workdir.config.write_text(json.dumps(config))
    return run


def files_of(run):
    return {path: path.read_bytes() for path in Path(run.workdir.root).rglob("*") if path.is_file()}


def test_it_is_refused_when_a_run_is_opened_and_when_its_config_is_read(older):
    before = files_of(older)
    with pytest.raises(ValueError, match=r"was begun by merit_jax 0\.1, .* use another --workdir"):
        open_run.open_run(older.config, older.workdir.root, overwrite=True)
    with pytest.raises(ValueError, match=r"was begun by merit_jax 0\.1"):
        saved_config.read(older.workdir.root)
    assert before == files_of(older)


def test_new_and_unconfigured_workdirs_pass(finished, tmp_path):
    refuse_older(Workdir.at(tmp_path / "new"))
    run = world.copied(finished, tmp_path)
    run.workdir.config.write_text(run.config.to_json_best_effort())
    refuse_older(run.workdir)


@pytest.mark.parametrize("name", ["evaluation", "frontier", "projection"])
def test_a_workdir_without_config_is_known_by_the_former_name_of_theta0(tmp_path, name):
    workdir = Workdir.at(tmp_path)
    section = "cosines" if name == "projection" else "models"
    getattr(workdir, name).write_text(json.dumps({section: {"base": {}, "merged": {}}}))
    with pytest.raises(ValueError, match=r"was begun by merit_jax 0\.1"):
        refuse_older(workdir)


@pytest.mark.parametrize("text", ["[]", "5", "null", "{", '{"gradients": 3}'])
def test_a_damaged_config_is_left_to_its_readers(tmp_path, text):
    workdir = Workdir.at(tmp_path)
    workdir.config.write_text(text)
    refuse_older(workdir)
