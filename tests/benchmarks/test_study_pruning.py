"""The study of pruned heads: what is compared, which weight counts, and how alike the choices of several samples are."""

import numpy as np
import pytest

from benchmarks.study_pruning import Point, chosen, overlap, plans, rows
from benchmarks.study_specialisation import arms, averaged, correlations
from merit_jax.pipeline.pruning.order import Pruning
from merit_jax.pruning import HeadScores


def point(criterion, seed=0, alpha=0.5, choosing=1.0, reporting=2.0, heads=(), draw=0):
    scores = {
        half: {"loss": loss, "accuracy": loss / 10} for half, loss in (("choosing", choosing), ("reporting", reporting))
    }
    return Point(Pruning(criterion, 0.3, alpha, draw), seed, 0.3, scores, frozenset(heads))


def test_only_what_depends_on_the_sample_is_repeated_for_each():
    found = [(seed, plan.criterion, plan.draw) for seed, plan in plans(0.3, (0.2, 0.8), (4, 5), draws=2)]
    assert found.count((4, "hies", 0)) == found.count((5, "hies", 0)) == 2
    assert [entry for entry in found if entry[1] in ("magnitude", "random")] == [
        (4, "magnitude", 0),
        (4, "random", 0),
        (4, "random", 1),
    ]


def test_of_each_seed_the_weight_with_the_lowest_loss_on_the_choosing_half_counts():
    points = [
        point("hies", seed=0, alpha=0.2, choosing=1.0, reporting=9.0),
        point("hies", seed=0, alpha=0.8, choosing=2.0, reporting=1.0),
        point("hies", seed=1, alpha=0.2, choosing=3.0, reporting=4.0),
        point("hies", seed=1, alpha=0.8, choosing=2.0, reporting=5.0),
        point("magnitude"),
    ]
    assert chosen(points) == [points[0], points[3], points[4]]
    line = rows(0.3, [*points, point("importance"), point("entropy"), point("random", draw=0)])[0]
    assert line[:4] == ["30%", "hies", "0.2, 0.8", f"{7:.3f} ± {np.std([9, 5], ddof=1):.3f}"]


def test_overlap_is_the_mean_jaccard_index_of_all_pairs():
    points = [point("hies", heads=heads) for heads in ((1, 2), (2, 3), (1, 2))]
    assert overlap(points) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)


def scores(*importance):
    return HeadScores({"decoder": np.array([importance])}, {"decoder": np.full((1, len(importance)), 0.5)})


def test_scores_of_branches_are_averaged_by_their_weights():
    found = averaged([scores(1.0, 2.0), scores(3.0, 6.0)], (0.75, 0.25))
    np.testing.assert_allclose(found.importance["decoder"], [[1.5, 3.0]])


def test_rank_correlations_compare_the_order_of_all_heads():
    table = correlations(
        {"one": scores(1.0, 2.0, 3.0), "same": scores(2.0, 5.0, 9.0), "reverse": scores(3.0, 2.0, 1.0)}, 0.5
    )
    assert table[0] == ["one", "1.00", "1.00", "-1.00"]


def test_arms_are_summarised_over_samples():
    known = {"whole": {"loss": 1.0, "accuracy": 0.5}}
    for name in ("after", "averaged", "theta0", "before"):
        known |= {f"{name} 0.3 {seed}": {"loss": 2.0 + seed, "accuracy": 0.25} for seed in (0, 1)}
    assert arms(known, ["0.3"], [0, 1])[1] == ["0.3", "after", f"2.500 ± {np.std([2, 3], ddof=1):.3f}", "25.0 ± 0.0"]
