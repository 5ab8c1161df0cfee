"""The mixed model agrees with closed forms, and finds the variances and coefficients that data were drawn with."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal

from merit_jax.advice import mixed_model
from merit_jax.advice.mixed_model import KINDS, PRIOR, Data, design, fit


def drawn(seed=0, worlds=8, methods=5, seeds=3, noise=1.0, departure=0.0):
    """Gains of methods with features φ on worlds with features x, and the law they follow: φ·(a + B x)."""
    rng = np.random.default_rng(seed)
    phi, x = rng.standard_normal((methods, 2)), rng.standard_normal((worlds, 2))
    a, B = np.array([2.0, -1.0]), np.array([[1.5, 0.0], [0.0, -2.0]])
    index = [(w, m, s) for w in range(worlds) for m in range(methods) for s in range(seeds)]
    own = departure * rng.standard_normal((worlds, 2))
    gains = [phi[m] @ (a + B @ x[w] + own[w]) + noise * rng.standard_normal() for w, m, s in index]
    names = [[f"{part}" for part in column] for column in zip(*index, strict=True)]
    w, m, _ = np.array(index).T
    data = Data(phi[m], x[w], names[0], names[0], names[1], [s for *_, s in index], np.array(gains))
    return data, a, B


def test_the_objective_is_minus_the_log_of_likelihood_and_prior_and_its_slope_is_right():
    data, *_ = drawn(worlds=3)
    blocks, logs = mixed_model._blocks(data), np.array([-1.0, -2.0, 0.0, -3.0, -1.5, 0.5])
    covariance = np.tensordot(np.exp(logs), blocks, axes=1) + mixed_model.JITTER * np.eye(len(data.gains))
    likelihood = multivariate_normal(np.zeros(len(data.gains)), covariance).logpdf(data.gains)
    constant = 0.5 * len(data.gains) * np.log(2 * np.pi)
    expected = -likelihood - constant + 0.5 * (((logs - PRIOR[0]) / PRIOR[1]) ** 2).sum()
    assert mixed_model._objective(logs, data.gains, blocks)[0] == pytest.approx(expected)
    value, slope = (lambda v, i=i: mixed_model._objective(v, data.gains, blocks)[i] for i in range(2))
    assert check_grad(value, slope, logs) < 1e-3


def test_the_law_is_recovered_and_its_uncertainty_covers_it():
    data, a, B = drawn(noise=0.3)
    found = fit(data)
    scale = np.sqrt(2), np.sqrt(4)
    std = np.sqrt(np.diag(found.covariance))
    expected = np.concatenate([a * scale[0], (B * scale[1]).ravel()])
    np.testing.assert_allclose(found.mean, expected, atol=0.5)
    assert (np.abs(found.mean - expected) < 3 * std).all()
    variances = dict(zip(KINDS, found.variances, strict=True))
    assert np.sqrt(variances["run"]) == pytest.approx(0.3, rel=0.25)


def test_departures_of_worlds_are_not_taken_for_noise_of_runs():
    plain, apart = (
        dict(zip(KINDS, fit(drawn(noise=0.3, departure=size, worlds=16)[0]).variances, strict=True))
        for size in (0.0, 2.0)
    )
    assert apart["world"] / 2 == pytest.approx(4.0, rel=0.6)
    assert plain["world"] < 0.1 * apart["world"]
    assert np.sqrt(apart["run"]) == pytest.approx(0.3, rel=0.3)


def test_coefficients_are_those_of_ridge_regression_at_the_same_variances():
    data, *_ = drawn(worlds=4, seeds=1)
    found = fit(data)
    scale = float(np.mean(data.gains**2))
    Z, variances = design(data.methods, data.mixtures), found.variances / scale
    rest = np.tensordot(variances[2:], mixed_model._blocks(data)[2:], axes=1) + mixed_model.JITTER * np.eye(len(Z))
    prior = np.repeat(1 / variances[:2], (2, 4))
    weights = np.linalg.inv(rest)
    precision = Z.T @ weights @ Z + np.diag(prior)
    np.testing.assert_allclose(found.mean, np.linalg.solve(precision, Z.T @ weights @ data.gains), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.covariance, scale * np.linalg.inv(precision), rtol=1e-3, atol=1e-5 * scale)
