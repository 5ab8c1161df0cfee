"""Sizes before and after heads are removed."""

from merit_jax.models import build
from merit_jax.pruning.costs import Sizes, sizes
from tests.support import tiny


def test_fewer_heads_are_fewer_parameters_and_smaller_keys_and_values():
    whole, less = (tiny.config(heads=h, kv_heads=g, dtype=t) for h, g, t in ((6, 2, "float32"), (3, 1, "bfloat16")))
    before, after = (sizes(model, model.abstract) for model in map(build, (whole, less)))
    attention = 3 * 24 * 4 * (6 + 2 + 2 + 6)
    others = 2 * tiny.VOCAB * 24 + 3 * (3 * 24 * 40 + 2 * 24) + 24
    assert before == Sizes(attention + others, 4 * (attention + others), 3 * 2 * 2 * 4 * 4)
    assert after == Sizes(attention // 2 + others, 4 * (attention // 2 + others), 3 * 2 * 1 * 4 * 2)
