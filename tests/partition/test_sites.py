"""Sites by rules, and how many groups each gets."""

import numpy as np
import pytest

from merit_jax.partition.sites import groups_of_sites, mean_cosine_inside, sites_by_rule


def test_the_first_rule_that_matches_holds():
    assert sites_by_rule(["ct_a", "ct_b", "x=y"], ["ct_a=one", "ct_*=two", "x=y=three"]) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["ct=a", "notes=b", "mri=c"], "no dataset matches 'mri'"),
        (["ct=a"], "dataset 'notes' matches no rule"),
        (["ct", "notes=b"], "'ct' is no rule; expected PATTERN=SITE"),
        (["ct=", "notes=b"], "'ct=' is no rule"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused(rules, said):
    with pytest.raises(ValueError, match=said):
        sites_by_rule(["ct", "notes"], rules)


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_powers_of_two_that_sum_to_k_and_have_datasets(seed):
    rng = np.random.default_rng(seed)
    sites = [f"s{i}" for i in rng.integers(0, 5, 60)]
    samples = rng.integers(1, 100, 60)
    for groups in (8, 16, 32):
        found = groups_of_sites(sites, samples, groups)
        assert sum(found.values()) == groups
        assert found.keys() == set(sites)
        for site, count in found.items():
            assert count & (count - 1) == 0
            assert count <= sites.count(site)


def test_the_larger_site_gets_more_groups():
    sites = ["big"] * 6 + ["small"] * 6
    assert groups_of_sites(sites, [100] * 6 + [10] * 6, 4) == {"big": 2, "small": 2}
    assert groups_of_sites(sites, [100] * 6 + [10] * 6, 8) == {"big": 4, "small": 4}
    three = ["big"] * 6 + ["small"] * 3 + ["tiny"] * 3
    assert groups_of_sites(three, [100] * 6 + [10] * 3 + [1] * 3, 4) == {"big": 2, "small": 1, "tiny": 1}


def test_more_sites_than_groups_and_too_few_datasets_are_refused():
    with pytest.raises(ValueError, match=r"names 3 sites \(a, b, c\), each with a group"):
        groups_of_sites(["a", "b", "c"], [1, 1, 1], 2)
    with pytest.raises(ValueError, match=r"too few datasets for so many groups .*\(a: 1, b: 2\)"):
        groups_of_sites(["a", "b", "b"], [1, 1, 1], 4)


def test_the_cosine_inside_groups_is_that_of_their_pairs():
    rng = np.random.default_rng(0)
    C = rng.normal(size=(6, 6))
    C = (C + C.T) / 2
    groups = np.array([0, 1, 0, 1, 0, 2])
    pairs = [C[i, j] for i in range(6) for j in range(i) if groups[i] == groups[j]]
    assert mean_cosine_inside(C, groups) == pytest.approx(np.mean(pairs))
    assert mean_cosine_inside(C[:2, :2], np.array([0, 1])) is None
