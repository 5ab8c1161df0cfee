"""Which heads stay, given their scores."""

import numpy as np
import pytest

from merit_jax.pruning.choice import choose, removed_ratio

RNG = np.random.default_rng(0)
SCORES = {"decoder": RNG.random((4, 12)), "vision": RNG.random((3, 4))}
GROUPS = {"decoder": 4, "vision": 4}


def lowest(scores, number):
    """The mask that independent sorting gives: all but the `number` lowest."""
    return scores > np.sort(scores, axis=None)[number - 1]


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_over_the_model_the_lowest_heads_of_all_parts_go(ratio):
    kept, both = choose(SCORES, GROUPS, ratio), np.concatenate([SCORES["decoder"].ravel(), SCORES["vision"].ravel()])
    expected = lowest(both, round(ratio * 60))
    np.testing.assert_array_equal(np.concatenate([kept["decoder"].ravel(), kept["vision"].ravel()]), expected)
    assert removed_ratio(kept) == pytest.approx(round(ratio * 60) / 60)


def test_every_layer_keeps_its_floor_and_the_next_lowest_go_in_its_place():
    scores = {"decoder": np.array([[0.0, 0.1, 0.2, 0.3], [1.0, 1.1, 1.2, 1.3]])}
    kept = choose(scores, {"decoder": 4}, 0.5, keep=2)["decoder"]
    np.testing.assert_array_equal(kept, [[0, 0, 1, 1], [0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"keeps 2 of its units; the largest possible ratio is 0\.5$"):
        choose(scores, {"decoder": 4}, 0.75, keep=2)


def test_a_group_goes_with_all_of_its_heads_by_their_mean():
    kept = choose(SCORES, GROUPS, 0.2, unit="group")
    means = SCORES["decoder"].reshape(4, 4, 3).mean(axis=2)
    groups = kept["decoder"].reshape(4, 4, 3)
    assert (groups.all(axis=2) | ~groups.any(axis=2)).all()
    gone, stay = means[~groups[..., 0]], np.concatenate([means[groups[..., 0]], SCORES["vision"][kept["vision"]]])
    assert max([*gone, *SCORES["vision"][~kept["vision"]]]) < stay.min()
    assert abs(removed_ratio(kept) - 0.2) <= 1.5 / 60


def test_over_layers_every_group_of_every_layer_loses_its_lowest_heads():
    kept = choose({"decoder": SCORES["decoder"]}, GROUPS, 1 / 3, spread="layer")["decoder"]
    grouped = SCORES["decoder"].reshape(16, 3)
    np.testing.assert_array_equal(kept.reshape(16, 3), grouped > grouped.min(axis=1, keepdims=True))


@pytest.mark.parametrize("unit", ["head", "group"])
def test_over_layers_heads_with_keys_of_their_own_are_chosen_in_the_whole_layer(unit):
    kept = choose({"vision": SCORES["vision"]}, GROUPS, 0.5, unit=unit, spread="layer")["vision"]
    np.testing.assert_array_equal(kept, SCORES["vision"] > np.sort(SCORES["vision"])[:, 1:2])


def test_of_equal_scores_the_first_go():
    for spread, expected in (("model", [[0, 0, 0, 1], [1, 1, 1, 1]]), ("layer", [[0, 0, 1, 1], [0, 0, 1, 1]])):
        ratio = {"model": 0.375, "layer": 0.5}[spread]
        kept = choose({"decoder": np.zeros((2, 4))}, {"decoder": 4}, ratio, spread=spread)["decoder"]
        np.testing.assert_array_equal(kept, expected)


def test_a_ratio_of_zero_keeps_all():
    assert removed_ratio(choose(SCORES, GROUPS, 0.0, spread="layer")) == 0


NAN = np.where(np.arange(12) == 5, np.nan, SCORES["decoder"])
REFUSED = [
    ({"ratio": 1.0}, r"ratio = 1\.0: expected a share"),
    ({"ratio": -0.1}, r"expected a share"),
    ({"ratio": float("nan")}, r"expected a share"),
    ({"keep": 0}, r"keep = 0: expected 1 or more"),
    ({"unit": "layer"}, r"unknown unit 'layer'; known: group, head"),
    ({"spread": "all"}, r"unknown spread 'all'; known: layer, model"),
    ({"scores": {}}, "scores of no part"),
    ({"scores": {"decoder": NAN}}, r"decoder: the score of head 5 of layer 0 is nan"),
    ({"groups": {"vision": 4}}, r"decoder: 12 heads of a layer .* groups = None"),
    ({"groups": {"decoder": 5, "vision": 4}}, "12 heads of a layer are not shared evenly by groups = 5"),
    ({"ratio": 0.99}, r"largest possible ratio is 0\.88333$"),
    ({"ratio": 0.005}, r"removes no head of the model; the smallest step is a ratio of 0\.016667$"),
    ({"ratio": 0.9, "spread": "layer"}, r"1 of every group of decoder must stay; .* ratio is 0\.66667$"),
    ({"ratio": 0.1, "spread": "layer"}, r"removes no head of a group of decoder; .* ratio of 0\.33333$"),
    ({"ratio": 0.1, "spread": "layer", "unit": "group"}, r"of a layer of decoder; .* ratio of 0\.25$"),
    ({"ratio": 0.7, "spread": "layer", "unit": "group", "keep": 2}, r"2 of every layer .* ratio is 0\.5$"),
    ({"ratio": 0.5, "spread": "layer", "keep": 9}, r"3 of every group .* ratio is 0$"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_cannot_be_chosen_is_refused_with_the_nearest_that_can(changes, message):
    arguments = {"scores": SCORES, "groups": GROUPS, "ratio": 0.3, **changes}
    with pytest.raises(ValueError, match=message):
        choose(**arguments)


@pytest.mark.parametrize(
    ("spread", "ratio"), [("model", 0.88333), ("model", 0.016667), ("layer", 0.66667), ("layer", 0.33333)]
)
def test_the_ratio_of_a_message_is_possible(spread, ratio):
    scores = SCORES if spread == "model" else {"decoder": SCORES["decoder"]}
    assert removed_ratio(choose(scores, GROUPS, ratio, spread=spread)) == pytest.approx(ratio, abs=1e-4)
