"""The advice after divergence names what the run can change."""

import pytest

from merit_jax.training.divergence import DivergedError, advice


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "raise train.warmup, lower train.clip_norm or compute in float32 (model.dtype), and"),
        ({"clip_norm": 1.0, "dtype": "bfloat16"}, "lower train.clip_norm or compute in float32 (model.dtype), and"),
        ({"clip_norm": 0.0, "dtype": "bfloat16"}, "set train.clip_norm (it is 0: no clipping) or compute in float32"),
        ({"clip_norm": 1.0, "dtype": "float32"}, "raise train.warmup or lower train.clip_norm, and"),
        (
            {"clip_norm": 0.0, "dtype": "float32"},
            "raise train.warmup or set train.clip_norm (it is 0: no clipping), and",
        ),
    ],
)
def test_advice_names_what_can_be_changed(known, said):
    assert said in advice(**known)


@pytest.mark.parametrize(("mend", "said"), [(None, f"x; {advice()}"), ("", "x"), ("do y", "x; do y")])
def test_an_error_ends_with_what_to_do(mend, said):
    assert str(DivergedError("x", mend)) == said
