"""Dataset gradients against the closed form of a linear loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.core import sharding, tree
from merit_jax.gradients.compression import make_compressor
from merit_jax.gradients.compressor import leaf_shardings
from merit_jax.gradients.count_sketch import CountSketch
from merit_jax.gradients.estimate import (
    AVERAGES,
    _accumulator,
    _stacked,
    _stacked_batches,
    dataset_gradients,
    fit_datasets_per_step,
    gradient_rows,
)
from merit_jax.gradients.stride import Stride
from tests.support import toy

DATASETS = [[toy.random_batch(0), toy.random_batch(1)], [toy.random_batch(2)], [toy.random_batch(3, length=7)]]
AXES = {"dense": {"kernel": ("embed", "mlp"), "bias": ("mlp",)}}


def take(**options):
    options = {"reduction": "stride", "stride": 1, **options}
    return dataset_gradients(toy.loss, toy.params(), DATASETS, **options)


@pytest.mark.parametrize("average", ["example", "token"])
@pytest.mark.parametrize("vmap", [1, 2, 3])
def test_gradients_are_means_over_examples_or_tokens(average, vmap):
    expected = np.stack([toy.gradient(batches, average) for batches in DATASETS])
    np.testing.assert_allclose(take(average=average, datasets_per_step=vmap), expected, rtol=1e-5, atol=1e-6)


def test_how_examples_are_batched_does_not_matter():
    whole = toy.random_batch(5, rows=8)
    parts = [jax.tree.map(lambda x, i=i: x[i : i + 4], whole) for i in (0, 4)]
    got = dataset_gradients(toy.loss, toy.params(), [[whole], parts], reduction="stride", stride=1)
    np.testing.assert_allclose(got[0], got[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [2, 3])
def test_datasets_of_other_shapes_side_by_side_give_what_they_give_alone(width):
    lengths = [(7, 5, 7), (5,), (), (9, 9), (5, 7, 9, 5), (7,)]
    datasets = [
        [toy.random_batch(10 * t + i, length=length) for i, length in enumerate(row)] for t, row in enumerate(lengths)
    ]
    options = {"trainable": (".*",), "average": "token", "reduce": Stride(1)}
    got = list(gradient_rows(toy.loss, toy.params(), datasets, datasets_per_step=width, **options))
    assert len(got) == len(datasets)
    for row, batches in zip(got, datasets, strict=True):
        if batches:
            np.testing.assert_allclose(row, toy.gradient(batches, "token"), rtol=1e-5, atol=1e-6)


def asked(counts, t, lengths):
    """Batches of dataset t, counted as they are asked for."""
    for length in lengths:
        counts[t] += 1
        yield toy.random_batch(t, length=length)


def test_batches_are_asked_for_one_at_a_time_and_shapes_wait_for_each_other():
    counts = [0, 0]
    steps = _stacked_batches([asked(counts, 0, (5, 5, 7)), asked(counts, 1, (5, 7, 7, 7))], 2)
    assert counts == [0, 0]
    taken = []
    for batch in steps:
        taken.append((batch.tokens.shape, (batch.weights.sum((1, 2)) > 0).tolist()))
        assert max(counts) <= len(taken) + 1
    assert taken == [
        ((2, 4, 5), [True, True]),
        ((2, 4, 5), [True, False]),
        ((2, 4, 7), [True, True]),
        ((2, 4, 7), [False, True]),
        ((2, 4, 7), [False, True]),
    ]
    assert counts == [3, 4]


def test_a_row_is_there_before_the_next_dataset_is_asked():
    counts = [0, 0, 0]
    options = {"trainable": (".*",), "average": "example", "reduce": Stride(1)}
    batches = [asked(counts, t, (5, 5)) for t in range(3)]
    rows = gradient_rows(toy.loss, toy.params(), batches, datasets_per_step=1, **options)
    for done in (1, 2, 3):
        next(rows)
        assert counts == [2] * done + [0] * (3 - done)


def test_frozen_parameters_have_no_part_in_the_gradient():
    bias = np.stack([toy.gradient(batches, "example")[: toy.COLUMNS] for batches in DATASETS])
    np.testing.assert_allclose(take(trainable=("bias",)), bias, rtol=1e-5, atol=1e-6)


def test_a_sketch_keeps_inner_products_within_its_stated_error():
    rng = np.random.default_rng(0)
    width, leaves = 4096, [{"a": rng.normal(size=(100, 80)), "b": rng.normal(size=500)} for _ in range(8)]
    flat = np.stack([np.concatenate([leaf["a"].ravel(), leaf["b"]]) for leaf in leaves])
    sketches = np.stack([CountSketch(width)(jax.tree.map(jnp.float32, leaf)) for leaf in leaves])

    def cosines(x):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return (unit @ unit.T)[np.triu_indices(8, 1)]

    error = cosines(sketches) - cosines(flat)
    assert np.sqrt((error**2).mean()) < 1.2 * np.sqrt(1 / width)
    assert abs(error.mean()) < 4 / np.sqrt(width * len(error))


def test_a_sketch_of_a_leaf_depends_on_its_path_alone():
    leaf, other = jnp.arange(50.0), jnp.ones(30)
    together = CountSketch(64)({"a": leaf, "b": other})
    np.testing.assert_allclose(together, CountSketch(64)({"a": leaf}) + CountSketch(64)({"b": other}), rtol=1e-5)
    assert not np.allclose(CountSketch(64)({"c": leaf}), CountSketch(64)({"a": leaf}))


def on_a_mesh(shape, axes):
    """The toy parameters on the first devices, and what puts batches beside them."""
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = sharding.make_mesh(*shape, devices=devices)
    params = jax.tree.map(sharding.place, toy.params(), sharding.of_params(mesh, axes, toy.params()))
    return params, lambda batch: sharding.place_batch(batch, mesh, leading=1)


@pytest.mark.parametrize("reduction", ["stride", "countsketch"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (2, 1, 2), (1, 4, 2), (1, 8, 1)])
def test_devices_change_nothing(shape, reduction):
    batches = [[toy.random_batch(seed, rows=8)] for seed in range(3)]
    reduce = make_compressor(reduction, stride=5, width=64)
    options = {"trainable": (".*",), "average": "example", "reduce": reduce}
    alone = list(gradient_rows(toy.loss, toy.params(), batches, **options))
    params, place = on_a_mesh(shape, AXES)
    for vmap in (1, 2):
        spread = list(gradient_rows(toy.loss, params, batches, place=place, datasets_per_step=vmap, **options))
        np.testing.assert_allclose(spread, alone, rtol=1e-5, atol=1e-5)


def test_sums_are_cut_as_their_leaves_and_updated_where_they_lie():
    params, place = on_a_mesh((1, 4, 2), AXES)
    leaves, _ = tree.split(params, (".*",))
    layout = tuple(leaf_shardings(leaves).items())
    add = _accumulator(toy.loss, AVERAGES["example"], 1, layout)
    sums = {path: jnp.zeros((1, *like.shape), device=_stacked(like)) for path, like in layout}
    batch = place(jax.tree.map(lambda x: x[None], toy.random_batch(0, rows=8)))
    compiled = add.lower(sums, jnp.zeros(1), leaves, {}, batch).compile()
    own = sum(4 * leaf.addressable_shards[0].data.size for leaf in leaves.values())
    assert compiled.memory_analysis().alias_size_in_bytes == own < sum(4 * leaf.size for leaf in leaves.values())
    found, _ = add(sums, jnp.zeros(1), leaves, {}, batch)
    for path, leaf in leaves.items():
        assert found[path].addressable_shards[0].data.shape[1:] == leaf.addressable_shards[0].data.shape


def test_each_shape_is_compiled_once_for_all_datasets():
    traced = []

    def loss(params, batch):
        traced.append(batch.tokens.shape)
        return toy.loss(params, batch)

    options = {"trainable": (".*",), "average": "example", "reduce": Stride(2)}
    for _ in range(2):
        batches = [[toy.random_batch(seed, length=length) for length in (5, 7)] for seed in range(4)]
        assert len(list(gradient_rows(loss, toy.params(), batches, **options))) == 4
    assert traced == [(4, 5), (4, 7)]


def test_what_an_earlier_dataset_left_is_not_added():
    loud = [jax.tree.map(lambda x: x, toy.random_batch(0))]
    options = {"trainable": (".*",), "average": "token", "reduce": Stride(1)}
    burst = lambda params, batch: (toy.loss(params, batch)[0] / (batch.tokens.shape[1] - 5), batch.weights.sum(-1))  # noqa: E731
    first, second = gradient_rows(burst, toy.params(), [loud, [toy.random_batch(1, length=7)]], **options)
    assert not np.isfinite(first).any()
    np.testing.assert_allclose(second, toy.gradient([toy.random_batch(1, length=7)], "token") / 2, rtol=1e-5, atol=1e-6)


def test_a_dataset_without_batches_has_no_direction_even_after_another():
    with pytest.raises(ValueError, match="dataset 'none': its gradient is not finite"):
        dataset_gradients(toy.loss, toy.params(), [[toy.random_batch(0)], []], names=["some", "none"])


def test_as_many_datasets_as_the_budget_allows_are_taken_together():
    params, place = on_a_mesh((1, 4, 2), AXES)
    options = {"trainable": (".*",), "average": "example", "most": 6, "place": place}
    counts = [
        fit_datasets_per_step(toy.loss, params, toy.random_batch(0, rows=8), budget=budget, **options).datasets
        for budget in (1, 4096, 2**30)
    ]
    assert counts[0] == 1 <= counts[1] <= counts[2] == 6
    sums = sum(4 * leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(params))
    found = fit_datasets_per_step(toy.loss, params, toy.random_batch(0, rows=8), budget=10 * sums, **options)
    assert 1 <= found.datasets <= 10
    assert f"all may take {10 * sums:,}" in found.reason


def test_a_dataset_without_a_direction_is_named():
    silent = toy.batch(np.zeros((4, 5), np.int32), np.ones((4, 5)))
    flat = lambda params, batch: (0.0 * toy.loss(params, batch)[0], batch.weights.sum(-1))  # noqa: E731
    with pytest.raises(ValueError, match="dataset 'quiet': its gradient is zero"):
        dataset_gradients(flat, toy.params(), [[silent]], names=["quiet"])
    burst = lambda params, batch: (toy.loss(params, batch)[0] / 0.0, batch.weights.sum(-1))  # noqa: E731
    with pytest.raises(ValueError, match="dataset 'loud': its gradient is not finite"):
        dataset_gradients(burst, toy.params(), [[silent]], names=["loud"])


def test_unknown_options_list_the_known_ones():
    with pytest.raises(ValueError, match=r"gradients.average 'mean'; known: example, token"):
        take(average="mean")
    with pytest.raises(ValueError, match=r"gradients.reduction 'pca'; known: countsketch, stride"):
        take(reduction="pca")
