"""Agreement of gradients of samples: closed forms, and against direct resampling."""

import numpy as np
import pytest

from merit_jax.diagnostics.bootstrap import bootstrap_cosines, examples_needed, gram, spearman_brown, split_half
from merit_jax.diagnostics.calibration import Blocks, calibration
from merit_jax.gradients.stride import Stride
from tests.support import toy

RNG = np.random.default_rng(0)
SIGNAL = RNG.normal(size=400)
ROWS = (SIGNAL + 2 * RNG.normal(size=(20, 400))).astype(np.float32)
K = gram(list(ROWS))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def measure(pools, **options):
    given = {"block": 1, "sizes": (1, 2), "draws": 30, "reduce": Stride(1), **options}
    return calibration(toy.loss, toy.params(), pools, **given)


def pool(name, *seeds):
    """Blocks of one example each."""
    return Blocks(name, [[one(seed)] for seed in seeds])


def one(seed):
    """A batch of one example that is not padding."""
    batch = toy.random_batch(seed)
    return batch._replace(weights=batch.weights * (np.arange(4) == 0)[:, None])


def test_a_sample_of_all_blocks_without_repetition_has_cosine_one_with_the_pool():
    assert cosine(ROWS.mean(axis=0), ROWS.mean(axis=0)) == pytest.approx(1)
    many = bootstrap_cosines(K, 20_000, 5, np.random.default_rng(0))
    np.testing.assert_allclose(many, 1, atol=1e-3)


def test_bootstrap_cosines_are_those_of_means_of_rows_drawn_with_replacement():
    chosen = np.random.default_rng(3).integers(20, size=(6, 4))
    expected = [cosine(ROWS[rows].mean(axis=0), ROWS.mean(axis=0)) for rows in chosen]
    np.testing.assert_allclose(bootstrap_cosines(K, 4, 6, np.random.default_rng(3)), expected, rtol=1e-5)


def test_halves_are_disjoint_and_of_equal_size():
    two = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(split_half(two, 4, np.random.default_rng(0)), 0, atol=1e-12)
    three = np.ones((3, 3)) + np.diag([0, 0, 99.0])
    assert split_half(three, 50, np.random.default_rng(0)).max() == pytest.approx(1)


def test_split_half_reliability_is_signal_over_signal_and_noise():
    found = split_half(K, 300, np.random.default_rng(0)).mean()
    assert found == pytest.approx(1 / (1 + 4 / 10), abs=0.05)


def test_spearman_brown_predicts_means_of_more_examples():
    assert spearman_brown(0.5, 2.0) == pytest.approx(2 / 3)
    assert spearman_brown(-0.1, 3.0) == 0
    rho = spearman_brown(1 / (1 + 4), 1.0)
    assert spearman_brown(rho, 10.0) == pytest.approx(1 / (1 + 4 / 10))


@pytest.mark.parametrize(("rho", "target"), [(0.3, 0.9), (0.8, 0.5)])
def test_the_examples_needed_reach_the_target(rho, target):
    n = examples_needed(rho, 100, target)
    assert spearman_brown(rho, n / 100) == pytest.approx(target)
    assert examples_needed(0.0, 100, target) == np.inf


def test_each_block_is_differentiated_once_and_the_reference_is_the_mean_of_all():
    found = measure([pool("a", 1, 2, 3, 4), pool("b", 5, 6)], sizes=(1, 2, 4), draws=40)
    rows = np.stack([toy.gradient([one(seed)], "example") for seed in (1, 2, 3, 4)])
    rng = np.random.default_rng([0, 0])
    expected = [bootstrap_cosines(rows @ rows.T, n, 40, rng) for n in (1, 2, 4)]
    (a, b) = found.datasets
    np.testing.assert_allclose(a.cosines, np.mean(expected, axis=1), rtol=1e-4)
    assert (a.examples, b.examples) == (4, 2)
    assert a.reliability == pytest.approx(split_half(rows @ rows.T, 40, rng).mean(), rel=1e-3)
    np.testing.assert_allclose(a.expected, spearman_brown(a.reliability, np.array([1, 2, 4]) / 2), rtol=1e-6)


def test_a_size_beyond_a_pool_says_nothing_of_it():
    found = measure([pool("a", 1, 2, 3, 4), pool("b", 5, 6)], sizes=(1, 4, 8))
    a, b = (dataset.cosines for dataset in found.datasets)
    assert np.isnan(b).tolist() == [False, True, True]
    assert found.cosine[0] == pytest.approx((a[0] + b[0]) / 2)
    assert found.cosine[1] == pytest.approx(a[1])
    assert np.isnan(found.cosine[2])
    assert found.std[0] == pytest.approx(np.std([a[0], b[0]], ddof=1))
    assert found.low[0] <= found.cosine[0] <= found.high[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sizes": (1, 3), "block": 2}, "rising multiples of calibration_block = 2"),
        ({"sizes": (2, 1)}, "rising multiples"),
        ({"sizes": ()}, "rising multiples"),
        ({"draws": 1}, r"diagnostics\.bootstrap = 1"),
        ({"target": 1.0}, r"diagnostics\.reliability = 1\.0"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        measure([pool("a", 1, 2)], **options)


def test_a_pool_of_one_block_has_no_halves():
    with pytest.raises(ValueError, match="dataset 'a' has fewer than 2 blocks"):
        measure([pool("a", 1)])
