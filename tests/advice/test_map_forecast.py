"""A forecaster recovers a law of gains on worlds that it has not seen, claims none where there is none, and knows its map."""

import json

import numpy as np
import pytest
from etils import epath

from merit_jax.advice.features import METHOD, MIXTURE, method_features
from merit_jax.advice.forecaster import Forecast, fit_forecaster
from merit_jax.advice.held_out import leave_one_world_out
from merit_jax.advice.map_forecast import MapForecast, fit_map, read_map, shipped, write_forecast
from merit_jax.advice.observations import read_observations
from merit_jax.advice.recommendation import recommend
from tests.support.maps import METHODS, map_of


def law(shared, features):
    """Slices gain where nothing is shared; whole datasets lose, the more the less is shared."""
    return 30 * (0.18 - shared) - 25 * (0.35 - shared) * features["coreless"] - 0.5 * features["by_conflict"]


def nothing(shared, features):
    return 0.0


@pytest.fixture(scope="module")
def fitted():
    return fit_map(map_of(law))


def mixture(cells):
    return dict(cells[0]["measured"]["0"]["mixture"])


def test_a_law_is_recovered_on_worlds_left_out(fitted):
    found = fitted.laws["interpolated_skill"].held_out
    assert (found.worlds, found.cells) == (6, 12)
    assert found.rank_correlation > 0.7
    assert found.error < 0.4 * found.error_of_zero
    assert found.covered > 0.85
    always = [value for name, value in found.regret.items() if name.startswith("always")]
    assert len(always) == 3
    assert found.regret["highest"] < 0.6 * min(always)


def test_no_law_is_claimed_where_there_is_none():
    rows = read_observations(map_of(nothing, noise=1.5))
    fitted = fit_forecaster(rows)
    found = leave_one_world_out(rows, fitted)
    assert abs(found.rank_correlation) < 0.4
    assert found.error < 1.2 * found.error_of_zero
    forecasts = {row.method: fitted.forecast_vectors(row.mixture, row.features) for row in rows}
    assert recommend({"joint": Forecast(0.0, 0.0, 0.0), **forecasts}, cluster=True).method == "joint"
    assert all(abs(one.mean) < 1 < one.run for one in forecasts.values())


def test_a_feature_that_hardly_differs_over_the_map_is_not_extrapolated_from():
    cells = map_of(law)
    for number, cell in enumerate(cells):
        for run in cell["measured"].values():
            run["mixture"]["parameters"] = 20.0 + 0.001 * (number % 3)
    forecaster = fit_map(cells).laws["interpolated_skill"].forecaster
    near, far = mixture(cells), {**mixture(cells), "parameters": 24.0}
    for features in cells[0]["measured"]["0"]["methods"].values():
        here, there = (forecaster.forecast(place, features) for place in (near, far))
        assert abs(there.mean - here.mean) < 5
        assert here.std <= there.std < here.std + 15


def test_the_uncertainty_covers_the_law_in_a_new_world_and_grows_away_from_the_map(fitted):
    cells, forecaster = map_of(law), fitted.laws["interpolated_skill"].forecaster
    inside = {**mixture(cells), "shared": 0.17}
    far = {**inside, "shared": 0.9}
    for name, features in cells[0]["measured"]["0"]["methods"].items():
        near, away = forecaster.forecast(inside, features), forecaster.forecast(far, features)
        if name == "joint":
            assert near == Forecast(0.0, 0.0, 0.0)
            continue
        assert abs(near.mean - law(0.17, features)) < 3 * near.std
        assert near.std < away.std
        assert near.std < near.run


def test_a_mixture_unlike_the_map_is_named_by_what_differs(fitted):
    known = mixture(map_of(law))
    assert fitted.coverage.outside(known) == []
    (reason,) = fitted.coverage.outside({**known, "steps": np.log2(40_000)})
    assert reason == "optimizer steps of joint training: 40,000; the map has 300 to 1,200"
    (reason,) = fitted.coverage.outside({**known, "shared": float("nan")})
    assert "cannot be told from noise" in reason
    assert len(fitted.coverage.outside({**known, "steps": 20.0, "parameters": 32.0})) == 2


def test_a_combination_that_no_world_has_is_outside_though_each_feature_is_inside():
    cells = map_of(nothing)
    for cell in cells:  # the loss follows the shared part
        for measured in cell["measured"].values():
            measured["mixture"]["loss"] = 20 * measured["mixture"]["shared"]
            measured["mixture"]["axes"] = 3 * measured["mixture"]["shared"]
    coverage = fit_map(cells).coverage
    known = mixture(cells)
    assert coverage.outside(known) == []
    (reason,) = coverage.outside({**known, "loss": 6.0, "axes": 0.15})
    assert "at distance" in reason


def test_a_method_with_more_branches_than_any_on_the_map_is_outside(fitted):
    def features(branches):
        return method_features(branches=branches, by_dataset=True, by_conflict=False, core=0.0, agreement=0.6)

    assert not fitted.coverage.method_is_outside(features(4))
    assert fitted.coverage.method_is_outside(features(64))
    assert not fitted.coverage.method_is_outside(features(1))


def test_a_fitted_forecast_is_read_back(fitted, tmp_path):
    path = epath.Path(tmp_path / "forecast.json")
    write_forecast(path, fitted)
    found, known = read_map(path), mixture(map_of(law))
    features = method_features(branches=4, by_dataset=True, by_conflict=True, core=0.0, agreement=0.5)
    for measure in fitted.laws:
        one, other = (each.laws[measure].forecaster.forecast(known, features) for each in (found, fitted))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
        assert found.laws[measure].held_out.cells == 12
    assert found.coverage.outside(known) == []
    assert path.stat().length < 200_000


def test_a_file_of_other_features_or_of_none_is_refused(fitted, tmp_path):
    data = fitted.to_dict()
    data["features"] = {**data["features"], "mixture": ["shared"]}
    with pytest.raises(ValueError, match=r"forecast\.json was fitted with other features"):
        MapForecast.from_dict(data, "forecast.json")
    cells = [{**cell, "measured": {}} for cell in map_of(nothing)]
    (tmp_path / "map.json").write_text(json.dumps(cells))
    with pytest.raises(ValueError, match=r"no measurements of its mixtures.* run benchmarks\.study_map"):
        read_map(epath.Path(tmp_path / "map.json"))
    without_joint = map_of(nothing)
    del without_joint[0]["methods"]["joint"]
    (tmp_path / "map.json").write_text(json.dumps(without_joint))
    with pytest.raises(
        ValueError, match=r"map\.json: KeyError 'joint'; expected the map\.json of benchmarks\.study_map"
    ):
        read_map(epath.Path(tmp_path / "map.json"))
    (tmp_path / "map.json").write_text("[")
    with pytest.raises(ValueError, match=r"map\.json is no JSON .*; expected the map\.json of benchmarks\.study_map"):
        read_map(epath.Path(tmp_path / "map.json"))
    (tmp_path / "other.json").write_text("3")
    with pytest.raises(ValueError, match=r"expected the map\.json"):
        read_map(epath.Path(tmp_path / "other.json"))


def test_pilots_sharpen_the_forecast_where_the_map_has_them():
    rng = np.random.default_rng(0)

    def hidden(shared, features):
        return float(rng.normal(0, 4)) if features["apart"] else 0.0

    cells = map_of(hidden, noise=0.3, pilot=lambda gain: {"pilot_gap": 0.0, "pilot_loss": -0.01 * gain})
    found = fit_map(cells)
    plain, pilot = found.laws["interpolated_skill"].held_out, found.pilot["interpolated_skill"].held_out
    assert pilot.error < 0.4 * plain.error
    assert fit_map(map_of(nothing)).pilot == {}


def test_observations_are_paired_by_seed_and_ordered_by_name():
    cells = map_of(law, noise=0.0)
    rows = read_observations(cells)
    assert len(rows) == 12 * 2 * (len(METHODS) - 1)
    for row in rows:
        shared = row.mixture[list(MIXTURE).index("shared")]
        assert row.gain == pytest.approx(law(shared, dict(zip(METHOD, row.features, strict=True))))
    cells[0]["methods"]["joint"] = cells[0]["methods"]["joint"][:1]
    assert len(read_observations(cells)) == len(rows) - (len(METHODS) - 1)


@pytest.mark.parametrize(
    ("mean", "cluster", "expected"),
    [
        (5.0, True, ("examples4", "apart_better")),
        (1.0, True, ("joint", "joint_within")),
        (-1.0, False, ("examples4", "apart_within")),
        (-5.0, False, ("joint", "joint_better")),
    ],
)
def test_joint_training_is_recommended_unless_another_is_better_or_as_good_and_joint_is_not_at_hand(
    mean, cluster, expected
):
    forecasts = {
        "joint": Forecast(0.0, 0.0, 0.0),
        "merit2d": Forecast(-9.0, 1.0, 1.0),
        "examples4": Forecast(mean, 1.0, 2.0),
    }
    found = recommend(forecasts, cluster=cluster)
    assert (found.method, found.reason) == expected
    assert found.best == "examples4"


def test_a_shipped_forecast_is_readable_if_there_is_one():
    found = shipped()
    assert found is None or set(found.laws) == {"interpolated_skill", "mean"}
