"""All of MERIT on tiny models of the other families with images, with every part trained."""

import numpy as np
import pytest

from merit_jax.core import tree
from merit_jax.models import load_pretrained
from merit_jax.pipeline.stages import run_stages
from tests.pipeline.test_vision_pipeline import ANSWERS, SETTINGS, SIZES, rows
from tests.support import tiny_qwen3_vl, tiny_tiles, world
from tests.support.tiny_vision import picture

FOLDERS = {"qwen3_vl": tiny_qwen3_vl.folder, "gemma3": lambda path: tiny_tiles.folder(path, "gemma3")}


@pytest.mark.slow
@pytest.mark.parametrize("family", FOLDERS)
def test_a_run_trains_merges_and_exports_every_part(tmp_path, compiled, family):
    FOLDERS[family](tmp_path / "theta0")
    (tmp_path / "data").mkdir()
    for number, (height, width) in enumerate(SIZES):
        picture(tmp_path / "data" / f"{number}.png", height, width)
    for name in ANSWERS:
        world.write_rows(tmp_path / "data" / f"{name}.train.jsonl", rows(name, 9 + len(name)))
        world.write_rows(tmp_path / "data" / f"{name}.test.jsonl", rows(name, 4, first=50))
    run = world.run(tmp_path, "run", "merit1d", **SETTINGS | {"train.trainable": (".",), "mixture.max_flawed": 1.0})
    run_stages(run)
    model, merged = load_pretrained(str(run.workdir.merged_hf))
    assert model.config.family == family
    before, after = tree.flatten(run.params), tree.flatten(merged)
    assert before.keys() == after.keys()
    for path, leaf in after.items():
        assert np.isfinite(leaf).all(), path
        if "key/bias" not in path:  # whose gradient is 0
            assert np.abs(leaf - before[path]).max() > 0, path
