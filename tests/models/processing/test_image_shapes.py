"""Shapes that are known before any image is read, against what the readers make."""

import jax
import numpy as np
import pytest

from merit_jax.models.modules.attention import LONGEST
from merit_jax.models.modules.chunked_attention import BLOCK
from merit_jax.models.pretrained.load import read_config
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.models.processing.image_shapes import image_rows, image_work
from tests.support import tiny_qwen3_vl, tiny_qwen_vl, tiny_tiles

PATCHES = 2 * LONGEST["auto"]
"""More than are scored all at once."""


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "clip", "smolvlm", "gemma3"])
def test_shapes_are_those_of_a_row_that_a_reader_fills(tmp_path, kind):
    patches = {"qwen2_5_vl": tiny_qwen_vl, "qwen3_vl": tiny_qwen3_vl}
    folder = patches[kind].folder(tmp_path / "m") if kind in patches else tiny_tiles.folder(tmp_path / "m", kind)
    config = read_config(folder)
    made = load_processor(folder, config).images.row([], 50, 37)
    found = image_rows(config, 50, 37)
    assert jax.tree.structure(found) == jax.tree.structure(made)
    for shape, array in zip(jax.tree.leaves(found), jax.tree.leaves(made), strict=True):
        assert (shape.shape, shape.dtype) == (array.shape, np.asarray(array).dtype)


def test_small_rows_of_patches_score_all_pairs_and_large_ones_blocks(tmp_path):
    config = read_config(tiny_qwen_vl.folder(tmp_path / "m"))
    small, large = image_work(config, 10), image_work(config, PATCHES // 4)
    assert small == (40, 10, 4 * 40**2, 40**2)
    pairs = 2 * PATCHES**2 + 2 * PATCHES * 3 * 16
    assert large == (PATCHES, PATCHES // 4, pairs, BLOCK**2)


def test_a_tower_without_windows_scores_pairs_of_images_in_every_block(tmp_path):
    config = read_config(tiny_qwen3_vl.folder(tmp_path / "m"))
    assert image_work(config, 10) == (40, 10, 4 * 40**2, 40**2)
    assert image_work(config, PATCHES // 4) == (PATCHES, PATCHES // 4, 4 * PATCHES**2, BLOCK**2)
