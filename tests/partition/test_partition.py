"""Every partitioner covers every dataset once; the median split is as balanced as its datasets allow."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit_jax import conflict
from merit_jax.core.registry import lookup
from merit_jax.partition import ASSIGNMENTS, PARTITIONERS, joint, uses_gradients


def cosines(t: int, seed: int = 0) -> np.ndarray:
    G = np.random.default_rng(seed).standard_normal((t, 6))
    unit = G / np.linalg.norm(G, axis=1, keepdims=True)
    return (unit @ unit.T).astype(np.float32)


@st.composite
def mixtures(draw):
    """(scores, samples): few or many datasets, tied or all equal scores, one huge dataset."""
    rank = draw(st.integers(1, 3))
    t = draw(st.integers(2**rank, 2**rank + 10))
    score = st.one_of(st.integers(-2, 2).map(float), st.floats(-1, 1, width=32))
    scores = draw(st.lists(st.lists(score, min_size=rank, max_size=rank), min_size=t, max_size=t))
    samples = draw(st.lists(st.integers(1, 50), min_size=t, max_size=t))
    if draw(st.booleans()):
        samples[draw(st.integers(0, t - 1))] = 10_000
    return np.array(scores, np.float32).reshape(t, rank), samples


@settings(max_examples=100, deadline=None)
@given(
    mixtures(), st.sampled_from(["median_split", "joint", "random", "alike", "conflict_induced"]), st.integers(0, 99)
)
def test_every_dataset_is_in_one_group_and_no_group_is_empty(mixture, method, seed):
    scores, samples = mixture
    groups = PARTITIONERS[method](scores, samples, similarity=cosines(len(samples)), seed=seed)
    assert groups.dtype == np.int32
    assert groups.shape == (len(samples),)
    assert sorted(set(groups.tolist())) == list(range(1 if method == "joint" else 2 ** scores.shape[1]))


@settings(max_examples=100, deadline=None)
@given(mixtures())
def test_each_cut_is_the_most_balanced_that_leaves_enough_datasets(mixture):
    scores, samples = mixture
    check_cut(scores, samples, PARTITIONERS["median_split"](scores, samples), range(len(samples)), 0)


def levels(axis, largest):
    """The place of each score among the distinct ones; a score within 1e-6 of the largest to the one below it is not distinct."""
    result, level, below = {}, 0, -np.inf
    for t in np.argsort(axis).tolist():
        level += bool(axis[t] - below > 1e-6 * largest)
        result[t], below = level, axis[t]
    return result


def check_cut(scores, samples, groups, members, depth):
    """Brute force over the allowed cuts; the heaviest dataset bounds the imbalance where the allowed cuts are all."""
    rank = scores.shape[1]
    if depth == rank:
        return
    bit, keep = rank - depth - 1, 2 ** (rank - depth - 1)
    level = levels(scores[:, depth], np.abs(scores).max())
    ordered = sorted(members, key=lambda t: (level[t], t))
    lower = [t for t in ordered if not groups[t] >> bit & 1]
    assert ordered[: len(lower)] == lower

    def imbalance(cut):
        return abs(sum(samples[t] for t in ordered[:cut]) - sum(samples[t] for t in ordered[cut:]))

    assert imbalance(len(lower)) == min(imbalance(cut) for cut in range(keep, len(ordered) - keep + 1))
    if keep == 1:
        assert imbalance(len(lower)) <= max(samples[t] for t in ordered)
    check_cut(scores, samples, groups, lower, depth + 1)
    check_cut(scores, samples, groups, ordered[len(lower) :], depth + 1)


def test_median_split_is_sample_balanced_where_a_count_of_datasets_would_not_be():
    groups = PARTITIONERS["median_split"](np.array([[0.0], [1.0], [2.0], [3.0]]), [1, 1, 1, 3])
    np.testing.assert_array_equal(groups, [0, 0, 0, 1])


def test_the_first_axis_is_the_highest_digit_of_the_group():
    scores = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(PARTITIONERS["median_split"](scores, [1] * 4), [0, 1, 2, 3])


def test_a_huge_dataset_leaves_enough_datasets_beside_it():
    scores = np.array([[4.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    groups = PARTITIONERS["median_split"](scores, [1000, 1, 1, 1])
    assert sorted(groups.tolist()) == [0, 1, 2, 3]
    assert groups[0] // 2 == groups[3] // 2 == 1


def test_equal_scores_are_cut_in_the_order_of_the_datasets():
    np.testing.assert_array_equal(PARTITIONERS["median_split"](np.zeros((6, 1)), [1] * 6), [0, 0, 0, 1, 1, 1])


@settings(max_examples=50, deadline=None)
@given(st.integers(8, 14).flatmap(lambda t: st.permutations(range(t))), st.integers(0, 999))
def test_the_order_of_the_datasets_does_not_matter_when_scores_differ(order, seed):
    rng, order = np.random.default_rng(seed), list(order)
    scores, samples = rng.standard_normal((len(order), 3)), rng.integers(1, 40, len(order))
    groups = PARTITIONERS["median_split"](scores, samples)
    np.testing.assert_array_equal(PARTITIONERS["median_split"](scores[order], samples[order]), groups[order])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=9, max_size=9))
def test_the_split_does_not_depend_on_gradient_norms(norms):
    G = np.random.default_rng(0).standard_normal((9, 30)).astype(np.float32)
    split = [
        PARTITIONERS["median_split"](conflict.principal_axes(conflict.cosine_similarity(g), 2).scores, [1] * 9)
        for g in (G, G * np.array(norms, np.float32)[:, None])
    ]
    np.testing.assert_array_equal(*split)


def split_of(G, samples, rank=2):
    axes = conflict.principal_axes(conflict.cosine_similarity(np.asarray(G, np.float32)), rank)
    return PARTITIONERS["median_split"](axes.scores, samples).tolist()


def test_where_one_axis_exists_the_second_cut_is_at_the_median_of_samples_in_order_of_the_datasets():
    """Two kinds of gradients, so one axis; the halves along it are the kinds."""
    same = [[1, 0, 0]] * 4 + [[0, 1, 0]] * 4
    assert split_of(same, [1] * 8) == [2, 2, 3, 3, 0, 0, 1, 1]
    assert split_of(same, [3, 1, 1, 1, 1, 1, 1, 3]) == [2, 3, 3, 3, 0, 0, 0, 1]


def test_datasets_without_any_conflict_are_split_at_the_median_of_samples_in_their_order():
    assert split_of([[1, 2, 3]] * 6, [5, 1, 1, 1, 1, 1]) == [0, 1, 2, 2, 3, 3]
    assert split_of([[1, 2, 3]] * 4, [1] * 4) == [0, 1, 2, 3]


def test_two_identical_datasets_do_not_stop_the_split_of_few():
    found = split_of([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], [10, 10, 10, 10])
    assert sorted(found) == [0, 1, 2, 3]


def test_collinear_gradients_are_split_by_their_sign():
    found = split_of([[1, 2], [-1, -2], [3, 6], [-2, -4]], [1] * 4, rank=1)
    assert found[0] == found[2] != found[1] == found[3]


@pytest.mark.parametrize("seed", range(4))
def test_scores_that_differ_by_rounding_alone_tie(seed):
    exact = np.array([[2.0], [2.0], [-1.0], [-1.0], [-1.0], [-1.0]])
    noise = 1e-7 * np.random.default_rng(seed).permutation(6)[:, None]
    samples = [1, 1, 1, 1, 1, 1]
    assert PARTITIONERS["median_split"](exact + noise, samples).tolist() == [1, 1, 0, 0, 0, 1]
    assert PARTITIONERS["kmeans"](exact + noise, samples, groups=2).tolist() == [0, 0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="3 clusters of 2 distinct points"):
        PARTITIONERS["kmeans"](exact + noise, samples, groups=3)


@pytest.mark.parametrize("method", ["median_split", "random", "alike", "kmeans", "conflict_induced"])
def test_too_few_datasets_are_refused(method):
    with pytest.raises(ValueError, match="cannot make 4 non-empty groups of 3 datasets"):
        PARTITIONERS[method](np.eye(3, 2), [1, 1, 1], similarity=cosines(3))


def test_random_split_is_the_median_split_of_seeded_gaussian_scores():
    scores, samples = np.zeros((12, 1)), list(range(1, 13))
    gaussian = np.random.default_rng(4).standard_normal((12, 3))
    made = PARTITIONERS["random"](scores, samples, groups=8, seed=4)
    np.testing.assert_array_equal(made, PARTITIONERS["median_split"](gaussian, samples))
    assert (made != PARTITIONERS["random"](scores, samples, groups=8, seed=5)).any()


def test_kmeans_finds_separated_clusters_of_unequal_size():
    scores = np.array([[5.0], [5.1], [0.0], [-9.0], [5.2], [0.1]])
    np.testing.assert_array_equal(PARTITIONERS["kmeans"](scores, [1] * 6, groups=3), [0, 0, 1, 2, 0, 1])


def test_kmeans_refuses_more_clusters_than_distinct_points():
    with pytest.raises(ValueError, match="4 clusters of 2 distinct points"):
        PARTITIONERS["kmeans"](np.repeat(np.eye(2), 3, axis=0), [1] * 6)


TWO_CAMPS = np.array(
    [[1, 0.9, -0.8, -0.9], [0.9, 1, -0.7, -0.6], [-0.8, -0.7, 1, 0.9], [-0.9, -0.6, 0.9, 1]], np.float32
)


def test_conflict_induced_groups_gather_disagreeing_datasets():
    groups = PARTITIONERS["conflict_induced"](np.zeros((4, 1)), [1] * 4, similarity=TWO_CAMPS)
    np.testing.assert_array_equal(groups, [0, 1, 0, 1])


def test_conflict_induced_between_separates_disagreeing_datasets():
    split = PARTITIONERS["conflict_induced"](np.zeros((4, 1)), [1] * 4, similarity=TWO_CAMPS, objective="between")
    np.testing.assert_array_equal(split, [0, 0, 1, 1])


def test_conflict_induced_seeds_are_the_most_conflicting_pair_then_the_farthest_from_it():
    C = np.eye(5, dtype=np.float32)
    for (i, j), value in {(1, 3): -0.9, (1, 4): -0.5, (3, 4): -0.2, (0, 1): 0.5, (2, 3): 0.4}.items():
        C[i, j] = C[j, i] = value
    groups = PARTITIONERS["conflict_induced"](np.zeros((5, 1)), [1] * 5, similarity=C, groups=3)
    assert groups[[1, 3, 4]].tolist() == [0, 1, 2]


def summed(groups, samples, C):
    """Σ_k |u_k|² of the groups' summed unit gradients."""
    member = np.asarray(samples, float) * (groups == np.arange(groups.max() + 1)[:, None])
    return np.trace(member @ C @ member.T)


def imbalance(groups, samples):
    sizes = np.bincount(groups, samples)
    return np.abs(sizes - sizes.mean()).max()


@settings(max_examples=60, deadline=None)
@given(mixtures(), st.integers(0, 99))
def test_no_balanced_change_of_places_makes_alike_groups_more_alike(mixture, seed):
    scores, samples = mixture
    C = cosines(len(samples), seed).astype(np.float64)
    start = PARTITIONERS["random"](scores, samples, seed=seed)
    groups = PARTITIONERS["alike"](scores, samples, similarity=C, seed=seed)
    least, room = summed(groups, samples, C), imbalance(start, samples)
    assert least <= summed(start, samples, C) * (1 + 1e-9)
    assert imbalance(groups, samples) <= room + 1e-9
    for one, other in itertools.combinations(range(len(samples)), 2):
        changed = groups.copy()
        changed[[one, other]] = groups[[other, one]]
        if imbalance(changed, samples) <= room:
            assert summed(changed, samples, C) >= least - 1e-6 * np.square(samples).max()


def test_alike_groups_have_a_part_of_every_camp():
    C = np.kron(np.eye(2), np.ones((4, 4)))
    C[C == 0] = -0.5
    for seed in range(5):
        groups = PARTITIONERS["alike"](np.zeros((8, 2)), [1] * 8, similarity=C, seed=seed)
        assert sorted(groups[:4]) == sorted(groups[4:]) == [0, 1, 2, 3]


def test_wrong_requests_are_refused_with_what_was_got():
    one, two = np.zeros((4, 1)), [1] * 4
    for method, options, message in [
        ("median_split", {"groups": 3}, "3 groups requested, but 1 axes make 2"),
        ("joint", {"groups": 2}, "joint training has one"),
        ("random", {"groups": 3}, "power of two"),
        ("random", {"groups": 0}, "power of two"),
        ("conflict_induced", {}, "of its 4 datasets; got none"),
        ("alike", {}, "alike needs the similarity matrix of its 4 datasets; got none"),
        ("alike", {"groups": 3, "similarity": np.eye(4)}, "power of two"),
        ("conflict_induced", {"similarity": np.eye(4), "objective": "x"}, "known: between, within"),
    ]:
        with pytest.raises(ValueError, match=message):
            PARTITIONERS[method](one, two, **options)
    for scores, samples, message in [
        (one, [1, 1], "scores of 4 datasets and sample counts of 2"),
        (one, [1, 0, 1, 1], r"datasets \[1\] have no samples"),
        (np.array([[0.0], [np.nan]]), [1, 1], r"scores of datasets \[1\] are not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            PARTITIONERS["median_split"](scores, samples)


def test_an_unknown_name_lists_the_known_ones():
    assert lookup(PARTITIONERS, "joint", "partition.method").assign is joint.joint
    with pytest.raises(
        ValueError, match=r"unknown partition.method 'jont'; known: alike, conflict_induced, joint, kmeans"
    ):
        lookup(PARTITIONERS, "jont", "partition.method")


def test_a_method_says_whether_it_looks_at_gradients():
    """A method that says no gets the same groups whatever the scores and similarities; one that says yes does not."""
    scores = np.random.default_rng(0).standard_normal((8, 2))
    for name, partitioner in PARTITIONERS.items():
        one, other = (
            partitioner(sign * scores, np.arange(1, 9), similarity=sign * cosines(8), seed=1).tolist()
            for sign in (1, -1)
        )
        assert uses_gradients(name) or one == other
        assert name in ("joint", "random") or uses_gradients(name)
    assert not any(map(uses_gradients, ASSIGNMENTS))
    with pytest.raises(
        ValueError, match=r"unknown partition.method 'jont'; known: alike, conflict_induced, examples, joint"
    ):
        uses_gradients("jont")
