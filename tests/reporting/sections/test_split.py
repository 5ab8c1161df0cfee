"""The section on the branches says what keeping datasets at their sites costs."""

from merit_jax.reporting.sections.split import cost_of_sites


def test_the_cost_of_sites_is_the_cosine_inside_branches_with_and_without_them():
    of = {"copy": "a", "upper": "a", "length": "b"}
    said = cost_of_sites({"of": of, "cosine_inside": 0.1234, "cosine_inside_free": 0.4})
    assert "two of the 2 sites" in said
    assert "mean cosine of 0.123; without that constraint it would be 0.400" in said


def test_without_similarities_no_cost_is_claimed():
    for known in ({}, {"cosine_inside": None, "cosine_inside_free": 0.2}):
        assert cost_of_sites({"of": {"copy": "a"}, **known}).endswith("(partition.sites).")
