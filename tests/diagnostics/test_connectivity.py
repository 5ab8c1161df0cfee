"""Losses and barriers on the lines between models, against the closed form."""

import itertools

import numpy as np
import pytest

from merit_jax.diagnostics.connectivity import connectivity, evaluations
from tests.support import hills

PLACES = {
    "branch 0": [-1.0, 0.0, 0.0, 0.0],
    "branch 1": [1.0, 0.5, 0.0, 0.0],
    "branch 2": [1.0, 0.0, -1.0, 3.0],
    "merged": [0.2, 0.1, 0.0, 1.0],
}
MODELS = {name: hills.params(x) for name, x in PLACES.items()}


class Asked(dict):
    """Models that count how often each was read."""

    reads = 0

    def __getitem__(self, name):
        self.reads += 1
        return super().__getitem__(name)


class Passes(list):
    """Batches that count how often they were gone through."""

    count = 0

    def __iter__(self):
        self.count += 1
        return super().__iter__()


def at(start, end, alpha):
    return (1 - alpha) * np.array(PLACES[start]) + alpha * np.array(PLACES[end])


def test_every_two_branches_and_every_branch_and_the_merge_have_a_line():
    found = connectivity(hills.bowl_loss, MODELS, hills.batches(3), points=3)
    assert [(path.start, path.end) for path in found.paths] == list(itertools.combinations(PLACES, 2))
    assert len(found.paths) == 3 * 2 // 2 + 3


def test_losses_are_those_of_the_points_on_the_line():
    found = connectivity(hills.bowl_loss, MODELS, hills.batches(3, 1), points=5)
    np.testing.assert_allclose(found.alphas, [0, 0.25, 0.5, 0.75, 1])
    for path in found.paths:
        expected = [hills.bowl(at(path.start, path.end, alpha)) for alpha in found.alphas]
        np.testing.assert_allclose(path.losses, expected, rtol=1e-5)


def test_a_convex_loss_has_no_barrier():
    found = connectivity(hills.bowl_loss, MODELS, hills.batches(3))
    assert [path.barrier for path in found.paths] == [0.0] * 6
    assert found.barrier == 0


def test_a_hill_between_two_wells_is_a_barrier_of_its_height():
    found = connectivity(hills.wells_loss, MODELS, hills.batches(3))
    barriers = {(path.start, path.end): path.barrier for path in found.paths}
    assert barriers["branch 0", "branch 1"] == pytest.approx(1, abs=1e-6)
    assert barriers["branch 1", "branch 2"] == pytest.approx(0, abs=1e-6)
    alphas = np.linspace(0, 1, 21)
    line = (np.array([at("branch 1", "merged", a)[0] for a in alphas]) ** 2 - 1) ** 2
    assert barriers["branch 1", "merged"] == pytest.approx(max(line - alphas * line[-1]), abs=1e-5)
    assert found.barrier == max(barriers.values())


def test_it_takes_as_many_evaluations_as_it_says_and_reads_a_model_when_it_is_needed():
    passes, models = Passes(hills.batches(3)), Asked(MODELS)
    connectivity(hills.bowl_loss, models, passes, points=7)
    assert passes.count == evaluations(4, 7) == 4 + 6 * 5
    assert models.reads <= 3 + 6 + 2  # the checkers of types read one each


@pytest.mark.parametrize(("models", "points"), [(1, 21), (3, 2)])
def test_lines_need_two_models_and_a_point_between(models, points):
    chosen = dict(list(MODELS.items())[:models])
    with pytest.raises(ValueError, match="expected at least"):
        connectivity(hills.bowl_loss, chosen, hills.batches(3), points=points)
