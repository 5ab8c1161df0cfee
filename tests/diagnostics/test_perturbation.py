"""The rise of a quadratic loss under noise, against its expectation and draw by draw."""

import numpy as np
import pytest

from merit_jax.diagnostics.perturbation import noisy, perturbation
from tests.support import hills

MODELS = {"merged": hills.params(hills.OPTIMUM), "joint": hills.params([0.0, 0.0, 0.0, 0.0])}
ONLY = ("kernel",)


def measure(models=MODELS, **options):
    given = {"sigmas": (0.1, 0.2), "draws": 3, "seed": 5, "trainable": ONLY, **options}
    return perturbation(hills.bowl_loss, models, hills.batches(2), **given)


def noise(draw):
    """ε of one draw."""
    return np.asarray(noisy(hills.params(np.zeros(4)), 1.0, 5, draw, ONLY)["kernel"], np.float64)


def test_increases_are_those_of_the_noisy_models():
    result = measure()
    for model, x in zip(result.models, (hills.OPTIMUM, np.zeros(4)), strict=True):
        rises = [[hills.bowl(x + s * noise(d)) - hills.bowl(x) for d in range(3)] for s in (0.1, 0.2)]
        np.testing.assert_allclose(model.increases, rises, atol=1e-5)
        assert model.loss == pytest.approx(hills.bowl(x), abs=1e-6)
        np.testing.assert_allclose(model.mean, np.mean(rises, axis=1), atol=1e-5)
        np.testing.assert_allclose(model.std, np.std(rises, axis=1, ddof=1), atol=1e-5)


def test_at_the_minimum_the_mean_rise_is_half_the_trace_times_the_variance():
    result = measure({"merged": MODELS["merged"]}, draws=400)
    expected = [s**2 * hills.CURVATURES.sum() / 2 for s in (0.1, 0.2)]
    np.testing.assert_allclose(result.models[0].mean, expected, rtol=0.15)


def test_the_area_begins_at_no_noise():
    (model, _) = measure().models
    assert model.auc == pytest.approx(0.1 * model.mean[0] / 2 + 0.1 * (model.mean[0] + model.mean[1]) / 2)


def test_frozen_leaves_get_no_noise_and_draws_differ():
    moved = noisy(MODELS["joint"], 0.3, 5, 0, ONLY)
    assert moved["frozen"] is hills.FROZEN
    assert np.abs(noise(0) - noise(1)).min() > 0
    np.testing.assert_allclose(moved["kernel"], 0.3 * noise(0), rtol=1e-6)


def test_noise_is_standard_normal_and_independent_over_leaves():
    many = noisy({"a": np.zeros((100, 100), np.float32), "b": np.zeros((100, 100), np.float32)}, 1.0, 0, 0)
    a, b = (np.asarray(many[name]).ravel() for name in "ab")
    assert (a.mean(), a.std()) == (pytest.approx(0, abs=0.05), pytest.approx(1, abs=0.05))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05


@pytest.mark.parametrize("sigmas", [(0.0, 0.1), (-0.1,), (0.2, 0.1), (0.1, 0.1), ()])
def test_sigmas_that_are_not_positive_and_rising_are_refused(sigmas):
    with pytest.raises(ValueError, match=r"diagnostics\.sigmas = .*expected positive"):
        measure(sigmas=sigmas)


def test_no_draw_is_refused_and_one_has_no_deviation():
    with pytest.raises(ValueError, match=r"diagnostics\.draws = 0"):
        measure(draws=0)
    assert np.isnan(measure(draws=1).models[0].std).all()
