"""What the operators promise where the answer is known: one branch, equal, orthogonal and empty task vectors, bad options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.core import tree
from merit_jax.merging import MERGERS, TreeLeaves, merge_streamed
from merit_jax.merging.operators.iso import own_directions
from merit_jax.merging.operators.selection import magnitude_threshold
from merit_jax.merging.statistics import INPUT_GRAMS
from tests.support import small_models

OPERATORS = sorted(set(MERGERS) - {"interpolate"})


def merge(name, theta0, thetas, weights=None, **options):
    weights = weights or [1 / len(thetas)] * len(thetas)
    if MERGERS[name].statistic == INPUT_GRAMS:
        options["statistics"] = [_unit_grams(theta) for theta in thetas]
    elif MERGERS[name].statistic:
        options["statistics"] = [jax.tree.map(np.ones_like, theta) for theta in thetas]
    return MERGERS[name](theta0, thetas, weights, **options)


def _unit_grams(theta):
    """Gram matrices of inputs that are not correlated, for every kernel."""

    def unit(leaf):
        size = leaf.shape[-2]
        return np.broadcast_to(np.eye(size, dtype=np.float32), (*leaf.shape[:-2], size, size))

    kernels = {path: leaf for path, leaf in tree.flatten(theta).items() if path.endswith("kernel")}
    return tree.unflatten({path: unit(leaf) for path, leaf in kernels.items()})


def assert_near(found, expected, atol=5e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), found, expected)


SAME = {"token_weighted": {}, "uniform": {}, "model_stock": {}, "fisher": {}, "ties": {"density": 1.0}}
SAME |= {"wudi": {"start": "mean"}, "optmerge": {"start": "mean"}}
SAME |= {"ota_ffg": {"density": 1.0}, "regmean": {}}
SAME |= {"star": {"eta": 1.0}, "dare_linear": {"drop_rate": 0.0}, "dare_ties": {"drop_rate": 0.0}}


@pytest.mark.parametrize("name", SAME)
def test_identical_branches_come_back(name):
    assert_near(merge(name, small_models.theta0(), [small_models.branch(1)] * 3, **SAME[name]), small_models.branch(1))


ALONE = {**SAME, "tsv_m": {}, "task_arithmetic": {"scale": 1.0}}
del ALONE["model_stock"]


@pytest.mark.parametrize("name", ALONE)
def test_a_single_branch_comes_back(name):
    assert_near(merge(name, small_models.theta0(), [small_models.branch(1)], **ALONE[name]), small_models.branch(1))


def test_model_stock_needs_two_branches():
    with pytest.raises(ValueError, match="model_stock merges at least 2 branches; got 1"):
        merge("model_stock", small_models.theta0(), [small_models.branch(1)])


@pytest.mark.parametrize("name", OPERATORS)
def test_a_theta0_that_is_not_finite_is_refused_by_every_operator(name):
    theta0 = small_models.theta0()
    theta0["bias"]["bias"][0] = np.nan
    with pytest.raises(ValueError, match="bias/bias: theta0 holds values that are not finite; start from a sound"):
        merge(name, theta0, small_models.branches(2))


def test_a_result_that_its_type_cannot_hold_is_refused_with_its_size():
    theta0, thetas = small_models.kernel(np.zeros((1, 2))), [small_models.kernel(np.full((1, 2), 60.0))] * 2
    half = [jax.tree.map(lambda leaf: leaf.astype(np.float16), params) for params in (theta0, *thetas)]
    with pytest.raises(ValueError, match=r"a/kernel: merged values up to 1\.2e\+05 do not fit float16"):
        merge("task_arithmetic", half[0], half[1:], scale=1000.0)


@pytest.mark.parametrize("name", OPERATORS)
def test_branches_that_did_not_move_give_theta0(name):
    assert_near(merge(name, small_models.theta0(), [small_models.theta0()] * 3), small_models.theta0(), atol=0)


@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "iso_cts"])
def test_a_branch_that_did_not_move_has_no_directions(name):
    """Its singular vectors are arbitrary: the result is that of a branch along the other's directions, not noise."""
    tau = np.diag([4.0, 2.0, 0.0, 0.0])
    found = merge(
        name, small_models.kernel(np.zeros((4, 4))), [small_models.kernel(tau), small_models.kernel(0 * tau)]
    )["a"]["kernel"]
    np.testing.assert_allclose(found * (tau == 0), 0, atol=1e-6)
    flat = np.diag([1.5, 1.5, 0.0, 0.0])
    np.testing.assert_allclose(found, tau if name == "tsv_m" else flat, atol=1e-5)


def rank_one(place: int, size: float) -> dict:
    matrix = np.zeros((6, 4))
    matrix[place, place] = size
    return small_models.kernel(matrix)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tsv_m", [3.0, 1.0]),
        ("iso_c", [1.0, 1.0]),
        ("iso_cts", [1.0, 1.0]),
        ("wudi", [3.0, 1.0]),
        ("optmerge", [3.0, 1.0]),
    ],
)
def test_orthogonal_tasks_of_rank_one_are_kept_apart(name, expected):
    thetas = [rank_one(0, 3.0), rank_one(1, 1.0)]
    found = merge(name, small_models.kernel(np.zeros((6, 4))), thetas)["a"]["kernel"]
    wanted = np.zeros((6, 4))
    wanted[[0, 1], [0, 1]] = expected
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_star_keeps_the_nuclear_norm_and_cuts_the_rank():
    tau = np.diag([5.0, 3.0, 1.0, 1.0])
    found = merge("star", small_models.kernel(np.zeros((4, 4))), [small_models.kernel(tau)], eta=0.6)["a"]["kernel"]
    np.testing.assert_allclose(found, np.diag([6.25, 3.75, 0, 0]), atol=1e-5)


def test_tsv_of_identical_branches_is_their_leading_part():
    tau = np.diag([4.0, 3.0, 2.0, 1.0])
    found = merge("tsv_m", small_models.kernel(np.zeros((4, 4))), [small_models.kernel(tau)] * 2)["a"]["kernel"]
    np.testing.assert_allclose(found, np.diag([4.0, 3.0, 0, 0]), atol=1e-5)


def test_a_matrix_with_fewer_singular_values_than_tasks_is_averaged_by_tsv():
    thetas = [small_models.kernel(np.full((2, 5), float(k))) for k in range(3)]
    found = merge("tsv_m", small_models.kernel(np.zeros((2, 5))), thetas, list(small_models.WEIGHTS))["a"]["kernel"]
    np.testing.assert_allclose(found, 0.7, rtol=1e-6)


@pytest.mark.parametrize(
    ("rank", "tasks", "fraction", "own"), [(100, 4, 0.8, 5), (64, 4, 0.8, 3), (6, 4, 0.0, 1), (3, 4, 0.0, 0)]
)
def test_iso_cts_divides_what_is_not_common(rank, tasks, fraction, own):
    assert own_directions(rank, tasks, fraction) == own
    assert rank - own * tasks >= 0


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 0.99, 1.0])
def test_the_threshold_keeps_exactly_the_largest(density):
    rng = np.random.default_rng(4)
    pieces = [(rng.normal(size=size) * 10.0 ** rng.integers(-9, 9, size)).astype(np.float32) for size in (700, 1, 299)]
    values = np.abs(np.concatenate(pieces))
    kept = max(1, int(density * 1000))
    assert (values >= magnitude_threshold(lambda: pieces, density)).sum() == kept


@pytest.mark.parametrize("name", OPERATORS)
def test_streamed_equals_in_memory_to_the_bit(name, tmp_path):
    theta0, thetas = small_models.theta0(), small_models.branches()
    statistics = small_models.statistics(name)
    expected = tree.flatten(MERGERS[name](theta0, thetas, small_models.WEIGHTS, statistics=statistics))
    readers, known = [TreeLeaves(theta) for theta in thetas], [TreeLeaves(statistic) for statistic in statistics]
    merge_streamed(
        MERGERS[name], TreeLeaves(theta0), readers, small_models.WEIGHTS, tmp_path / "merged", statistics=known
    )
    found = OrbaxLeaves(tmp_path / "merged")
    for path, leaf in expected.items():
        assert found.read(path).tobytes() == leaf.tobytes()


@pytest.mark.parametrize("name", OPERATORS)
def test_on_devices_and_in_half_precision_types_are_kept(name):
    def half(params):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)

    found = merge(name, half(small_models.theta0()), [half(small_models.branch(k)) for k in range(2)])
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(found))


def test_frozen_parameters_do_not_enter_the_global_trim(tmp_path):
    theta0 = {"frozen": np.zeros(100, np.float32), "a": np.zeros(10, np.float32)}
    thetas = [TreeLeaves({"a": np.arange(10, dtype=np.float32)}) for _ in range(2)]
    options = {"density": 0.3, "trim_scope": "global"}
    merge_streamed(MERGERS["ties"], TreeLeaves(theta0), thetas, [0.5, 0.5], tmp_path / "merged", **options)
    np.testing.assert_array_equal(OrbaxLeaves(tmp_path / "merged").read("a"), [0, 0, 0, 0, 0, 0, 0, 7, 8, 9])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ties", {"density": 0}, r"density of ties: got 0; expected a number above 0 and at most 1"),
        ("ties", {"density": 20}, "density of ties: got 20"),
        ("ties", {"trim_scope": "layer"}, "got 'layer'; expected one of global, tensor"),
        ("ties", {"weighted_mean": 1}, "weighted_mean of ties: got 1; expected true or false"),
        ("dare_linear", {"drop_rate": 1.0}, r"got 1\.0; expected a number of at least 0 and below 1"),
        ("dare_ties", {"seed": 0.5}, "seed of dare_ties: got 0.5; expected a whole number"),
        ("star", {"eta": 40}, "eta of star: got 40"),
        ("tsv_m", {"scale": float("inf")}, "scale of tsv_m: got inf; expected a finite number"),
        ("iso_c", {"scale": "1"}, "scale of iso_c: got '1'"),
        ("iso_cts", {"common_fraction": 1.1}, "expected a number of at least 0 and at most 1"),
        ("fisher", {"floor": -1}, "floor of fisher: got -1"),
        ("ota_ffg", {"density": 0}, "density of ota_ffg: got 0; expected a number above 0 and at most 1"),
        ("regmean", {"alpha": 1.5}, r"alpha of regmean: got 1\.5; expected a number of at least 0 and at most 1"),
        ("wudi", {"damping": -0.1}, r"damping of wudi: got -0\.1; expected a number of at least 0"),
        ("optmerge", {"start": "zero"}, "start of optmerge: got 'zero'; expected one of sum, mean"),
        ("model_stock", {"scale": 1}, r"unknown \['scale'\], missing \[\]; model_stock takes \[\]"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(name, options, said):
    class Unread(TreeLeaves):
        def read(self, path):
            raise AssertionError(path)

    readers = [Unread(theta) for theta in small_models.branches(2)]
    with pytest.raises(ValueError, match=said):
        MERGERS[name].prepare(Unread(small_models.theta0()), readers, [0.5, 0.5], options)


def test_missing_or_broken_fisher_information_is_named():
    theta0, thetas, fishers = small_models.theta0(), small_models.branches(), small_models.fishers()
    with pytest.raises(ValueError, match="Fisher information of 0 branches, expected that of 3"):
        MERGERS["fisher"](theta0, thetas, small_models.WEIGHTS)
    del fishers[1]["bias"]
    with pytest.raises(ValueError, match=r"bias/bias: the Fisher information of branch 1 has nothing, expected \[6\]"):
        MERGERS["fisher"](theta0, thetas, small_models.WEIGHTS, statistics=fishers)
    fishers = small_models.fishers()
    fishers[2]["bias"]["bias"][0] = -1
    with pytest.raises(ValueError, match="bias/bias: the Fisher information of branch 2 is negative or not finite"):
        MERGERS["fisher"](theta0, thetas, small_models.WEIGHTS, statistics=fishers)


def test_a_missing_second_moment_of_adam_is_named():
    with pytest.raises(ValueError, match="second moment of Adam of 0 branches, expected that of 3"):
        MERGERS["ota_ffg"](small_models.theta0(), small_models.branches(), small_models.WEIGHTS)


def test_a_diverged_branch_is_named_by_the_first_pass():
    thetas = small_models.branches()
    thetas[1]["bias"]["bias"][0] = np.nan
    with pytest.raises(ValueError, match="bias/bias: branch 1 holds values that are not finite"):
        MERGERS["ties"](small_models.theta0(), thetas, small_models.WEIGHTS, trim_scope="global")
