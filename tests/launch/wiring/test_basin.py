"""Preparing theta0: stage after stage from random weights, frozen parts untouched, finished stages skipped."""

import json
import shutil
from pathlib import Path

import pytest

import tests.support.tiny_tiles as tiny_tiles
from merit_jax.configs import common
from merit_jax.launch.wiring import basin
from merit_jax.pipeline import train_branches
from tests.support import world

pytestmark = pytest.mark.usefixtures("one_device")

STAGE = """
from pathlib import Path
from tests.launch.wiring import test_basin

def get_config(method="merit2d"):
    return test_basin.config(Path({root!r}), method, trainable={trainable!r})
"""


def config(root, method="joint", trainable=(".*",), **changes):
    """A stage in the tiny world of coloured squares."""
    c = common.get_config().unlock()
    c.mixture.path = str(root / "data.json")
    c.mixture.max_length = 48
    c.mixture.max_flawed = 1.0  # the tiny template writes no end of turn
    c.train.update(
        {"row_length": 48, "image_tokens": 32, "batch_size": 8, "trainable": trainable, "learning_rate": 1e-2}
    )
    c.update_from_flattened_dict(changes)
    return common.with_method(c.lock(), method)


def stages(root):
    """A world with two stages that start from nothing, and the config that asks for them."""
    like, data = root / "like", root / "data"
    like.mkdir()
    data.mkdir()
    tiny_tiles.helpers(like, "clip")
    (like / "config.json").write_text(json.dumps(tiny_tiles.hf_config("clip")))
    for index, color in enumerate(("red", "blue")):
        tiny_tiles.picture(data / f"{index}.png", 20, 20, seed=index)
        said = [("human", "<image>\nwhat is this ?"), ("gpt", f"a {color} square")]
        record = {"image": f"{index}.png", "conversations": [{"from": who, "value": text} for who, text in said]}
        world.write_rows(data / f"{color}.jsonl", [record] * 6)
    manifest = {name: {"file_name": f"data/{name}.jsonl", "formatting": "llava"} for name in ("red", "blue")}
    (root / "data.json").write_text(json.dumps(manifest))
    files = []
    for name, trainable in (("align", ("^projector/",)), ("instruct", ("^projector/", "^decoder/"))):
        files.append(root / f"{name}.py")
        files[-1].write_text(STAGE.format(root=str(root), trainable=trainable))
    given = {"basin.rebuild": True, "basin.start": str(like), "basin.stages": tuple(map(str, files))}
    return config(root, "merit1d", **given)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, compiled, one_device):
    """(root, theta0) of a finished basin; not to be written to."""
    root = tmp_path_factory.mktemp("basin")
    return root, Path(basin.train_basin(stages(root), root / "run"))


def again(prepared, tmp_path):
    """A copy of a finished basin: its workdir, and the config that asks for it."""
    shutil.copytree(prepared[0] / "run", tmp_path / "run")
    given = {"basin.rebuild": True, "basin.start": str(prepared[0] / "like")}
    files = tuple(str(prepared[0] / f"{name}.py") for name in ("align", "instruct"))
    return tmp_path / "run", config(prepared[0], "merit1d", **given, **{"basin.stages": files})


def times(folder):
    """When the files of a folder were written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_stage_trains_its_parts_and_leaves_the_others_bit_identical(prepared):
    root, theta0 = prepared
    folders = [root / "run" / "basin" / name for name in ("start", "1_align/merged/hf", "2_instruct/merged/hf")]
    assert theta0 == folders[-1]
    start, aligned, instructed = (world.exported(folder) for folder in folders)
    for before, after, trained in (
        (start, aligned, ("projector/",)),
        (aligned, instructed, ("projector/", "decoder/")),
    ):
        changed = {path for path in after if before[path].tobytes() != after[path].tobytes()}
        assert {path.split("/")[0] + "/" for path in changed} == set(trained)
        assert any(path.endswith("kernel") for path in changed)
    copied = {"tokenizer.json", "preprocessor_config.json", "config.json"}
    assert all((theta0 / name).read_bytes() == (folders[0] / name).read_bytes() for name in copied)


def test_a_finished_basin_is_not_touched_and_becomes_the_runs_theta0(prepared, tmp_path, monkeypatch):
    workdir, given = again(prepared, tmp_path)
    basin.train_basin(given, workdir)  # a copy has other times, of which theta0.json keeps note
    before = times(workdir)
    monkeypatch.setattr(train_branches, "fine_tune", None)
    prepared_config = basin.prepare_theta0(given, workdir)
    assert times(workdir) == before
    assert prepared_config.model.path == str(workdir / "basin" / "2_instruct" / "merged" / "hf")
    assert not given.model.path
    with given.unlocked():
        given.basin.rebuild = False
    assert basin.prepare_theta0(given, tmp_path / "other") is given
    assert not (tmp_path / "other").exists()


def test_a_basin_carries_on_after_the_last_finished_stage(prepared, tmp_path):
    workdir, given = again(prepared, tmp_path)
    shutil.rmtree(workdir / "basin" / "2_instruct")
    before = times(workdir / "basin" / "1_align" / "branches")
    theta0 = basin.train_basin(given, workdir)
    assert times(workdir / "basin" / "1_align" / "branches") == before
    found, expected = world.exported(Path(theta0)), world.exported(prepared[1])
    assert all(found[path].tobytes() == leaf.tobytes() for path, leaf in expected.items())


def test_a_basin_from_another_start_is_refused(prepared, tmp_path):
    workdir, given = again(prepared, tmp_path)
    shutil.copytree(prepared[0] / "like", tmp_path / "like")
    (tmp_path / "like" / "generation_config.json").write_text("{}")
    given.basin.start = str(tmp_path / "like")
    with pytest.raises(ValueError, match=r"start\.json was made from other inputs: like\.generation_config\.json"):
        basin.train_basin(given, workdir)


def test_stages_that_are_no_configs_are_refused(tmp_path):
    (tmp_path / "no_config.py").write_text("")
    mistakes = {
        r"basin\.stages is empty": (),
        r"absent\.py: expected a Python file": (str(tmp_path / "absent.py"),),
        r"no_config\.py: expected a Python file that defines get_config": (str(tmp_path / "no_config.py"),),
    }
    for message, files in mistakes.items():
        with pytest.raises(ValueError, match=message):
            basin.prepare_theta0(config(tmp_path, **{"basin.rebuild": True, "basin.stages": files}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
