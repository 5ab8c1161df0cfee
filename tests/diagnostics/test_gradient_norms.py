"""Concentration of gradient norms, raw and trimmed."""

import numpy as np
import pytest

from merit_jax.diagnostics.gradient_norms import gradient_norms

NORMS = [float(n) for n in np.random.default_rng(0).permutation(np.r_[np.arange(1, 20), 100])]
NAMES = [f"d{i}" for i in range(20)]


def test_rows_are_the_statistics_of_what_trimming_leaves():
    found = gradient_norms(NAMES, NORMS)
    kept = [np.array([*range(1, 20), 100]), np.arange(2, 20), np.arange(3, 19)]
    assert [row.trimmed for row in found.rows] == [0.0, 0.05, 0.1]
    for row, values in zip(found.rows, kept, strict=True):
        assert (row.datasets, row.mean) == (len(values), pytest.approx(values.mean()))
        assert row.std == pytest.approx(values.std(ddof=1))
        assert row.cv == pytest.approx(values.std(ddof=1) / values.mean())
        assert row.ratio == pytest.approx(values.max() / values.min())


def test_norms_stay_with_their_names():
    assert dict(zip(*gradient_norms(NAMES, NORMS)[:2], strict=True)) == dict(zip(NAMES, NORMS, strict=True))


def test_one_dataset_has_no_spread():
    with pytest.raises(ValueError, match="at least 2 datasets, got 1"):
        gradient_norms(["a"], [1.0])
