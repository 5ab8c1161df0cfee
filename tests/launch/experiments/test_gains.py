"""Merging gains of many methods: their correlations and their picture."""

import numpy as np
import pytest

from merit_jax.launch.experiments.figures import draw_gains
from merit_jax.launch.experiments.gains import Gain, correlation, to_json

FOUND = [
    Gain(seed, f"{split}:train.learning_rate={rate}", rate, predicted, 2 * predicted, 3.0 + predicted, 3.0 - predicted)
    for seed, predicted in ((0, 0.1), (1, 0.4))
    for rate, split in ((1e-4, "merit2d"), (4e-4, "random4"))
]


def test_correlations_are_those_of_values_and_of_ranks():
    x, y = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 100.0]
    found = correlation(x, y)
    assert found.pearson == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.spearman == pytest.approx(0.8)
    assert found.merges == 4


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_two_dots_or_a_constant_have_no_correlation(x, y):
    assert correlation(x, y) is None


def test_gains_are_correlated_over_all_and_at_each_learning_rate():
    found = to_json(FOUND)
    assert found["gains"][0]["obtained"] == 0.2
    assert found["obtained with predicted"]["all"]["pearson"] == pytest.approx(1)
    assert found["merged loss with obtained"]["all"]["pearson"] == pytest.approx(-1)
    assert found["obtained with predicted"]["0.0001"] is None
    assert set(found["obtained with predicted"]) == {"all", "0.0001", "0.0004"}


def test_gains_are_drawn_whatever_their_sign(tmp_path):
    for found in (FOUND, [gain._replace(predicted=-1.0, obtained=0.0) for gain in FOUND]):
        assert draw_gains(tmp_path / "gains.png", found).read_bytes().startswith(b"\x89PNG")
    assert draw_gains(tmp_path / "none.png", []) is None
