"""Scores of heads: HIS against finite differences, its bound on the loss, and how both halves are put together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.core.heads import HasHeads
from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Batch
from merit_jax.models import load_pretrained
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.pruning.criteria import CRITERIA, HeadFacts
from merit_jax.pruning.scores import HeadScores, HeadSums, head_measure, head_sums, hies, mean_scores
from tests.support import tiny, tiny_qwen_vl, tiny_tiles

PARTS = ("decoder",)


def examples(*lengths, width=9, seed=0):
    """One example to a row; all tokens but the first are supervised, and rows of length 0 have none."""
    rows = tiny.rows(*lengths, width=width, seed=seed)
    targets = np.roll(rows.tokens, -1, axis=1)
    weights = np.float32((np.arange(width) < np.array(lengths)[:, None] - 1) & (rows.segments > 0))
    return Batch(rows.tokens, targets, weights, rows.positions, rows.segments)


@pytest.fixture(scope="module")
def world():
    model = tiny.model("qwen2")
    return model, tiny.params(model), examples(7, 5, 9)


def open_gates(model):
    return {part: np.ones((count.layers, count.heads)) for part, count in model.heads.items()}


def mean_losses(model, params, batch, gates):
    nll, tokens = next_token_loss(model.gated(gates), 4)(params, batch)
    return nll / tokens


def test_importance_is_the_mean_absolute_slope_by_finite_differences(x64):
    model = tiny.model("qwen2", dtype="float64", param_dtype="float64")
    params = jax.tree.map(np.float64, tiny.params(model, scale=0.35))
    batch = examples(7, 5, 9)
    found = mean_scores(head_sums(head_measure(model, PARTS, 4), params, [batch], open_gates(model))).importance[
        "decoder"
    ]
    count = model.heads["decoder"]
    loss = jax.jit(lambda gates: mean_losses(model, params, batch, {"decoder": gates}))

    def slope(layer, head, step=0.02):
        """Of every example, by central differences of fourth order."""
        at = [loss(jnp.ones((count.layers, count.heads)).at[layer, head].add(n * step)) for n in (-2, -1, 1, 2)]
        return np.asarray(at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)

    expected = [[np.abs(slope(layer, head)).mean() for head in range(count.heads)] for layer in range(count.layers)]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert np.ptp(found) > 0.01


def test_the_loss_rises_to_first_order_by_no_more_than_the_sum_of_importance(world):
    model, params, batch = world
    importance = mean_scores(head_sums(head_measure(model, PARTS, 4), params, [batch], open_gates(model))).importance[
        "decoder"
    ]
    pruned = np.zeros(importance.shape, bool)
    pruned[0, 1], pruned[2, 3], pruned[1, :2] = True, True, True

    def change(gates):
        return mean_losses(model, params, batch, {"decoder": gates})

    direction = -jnp.asarray(pruned, jnp.float32)
    rise = np.asarray(jax.jvp(change, (jnp.ones(pruned.shape),), (direction,))[1])
    assert np.abs(rise).mean() <= importance[pruned].sum() * (1 + 1e-5)
    alone = np.zeros(pruned.shape, bool)
    alone[2, 3] = True
    rise = np.asarray(jax.jvp(change, (jnp.ones(pruned.shape),), (-jnp.asarray(alone, jnp.float32),))[1])
    np.testing.assert_allclose(np.abs(rise).mean(), importance[alone].sum(), rtol=1e-4)


def test_how_examples_are_batched_does_not_matter(world):
    model, params, batch = world
    measure = head_measure(model, PARTS, 4)
    assert isinstance(model, HasHeads)
    together = head_sums(measure, params, [batch], open_gates(model))
    rows = [jax.tree.map(lambda x, n=n: x[n : n + 1], batch) for n in range(3)]
    padded = jax.tree.map(lambda x: np.pad(x, [(0, 1), (0, 4)]), batch)
    for other in (
        head_sums(measure, params, rows, open_gates(model)),
        head_sums(measure, params, [padded], open_gates(model)),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), other, together)
    assert together.examples == 3


def test_sums_of_datasets_add_up(world):
    model, params, batch = world
    measure = head_measure(model, PARTS, 4)
    first, second = (jax.tree.map(lambda x, n=n: x[n], batch) for n in (slice(2), slice(2, 3)))
    parts = head_sums(measure, params, [first], open_gates(model)) + head_sums(
        measure, params, [second], open_gates(model)
    )
    whole = head_sums(measure, params, [first, second], open_gates(model))
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


def scores(importance, entropy):
    return HeadScores({"decoder": np.array(importance)}, {"decoder": np.array(entropy)})


def test_hies_weighs_importance_against_low_entropy_after_scaling_both():
    found = scores([[1.0, 3.0, 2.0]], [[0.4, 0.9, 0.6]])
    np.testing.assert_allclose(hies(found, 0.25)["decoder"], [[0.75, 0.25, 0.125 + 0.75 * 0.6]])
    np.testing.assert_allclose(hies(found, 1.0)["decoder"], [[0, 1, 0.5]])
    np.testing.assert_allclose(hies(found, 0.0)["decoder"], [[1, 0, 0.6]])


def test_all_heads_of_a_model_are_scaled_together():
    both = {"decoder": np.array([[0.0, 1.0]]), "vision": np.array([[4.0, 2.0]])}
    found = hies(HeadScores(both, {part: np.zeros((1, 2)) for part in both}), 1.0)
    assert {part: values.tolist() for part, values in found.items()} == {"decoder": [[0, 0.25]], "vision": [[1, 0.5]]}


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match="expected 0"):
        hies(scores([[1.0, 2.0]], [[0.5, 0.1]]), alpha)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="importance of a head is not finite"):
        hies(scores([[np.nan, 2.0]], [[0.5, 0.1]]), 0.5)


def test_examples_without_supervised_tokens_are_refused(world):
    model, params, batch = world
    silent = batch._replace(weights=np.zeros_like(batch.weights))
    with pytest.raises(ValueError, match="no calibration example has supervised tokens"):
        mean_scores(head_sums(head_measure(model, PARTS, 4), params, [silent], open_gates(model)))


def test_an_entropy_that_no_example_measures_is_refused():
    sums = HeadSums(2, {"vision": np.ones((1, 2))}, {"vision": np.zeros(1)}, {"vision": np.zeros((1, 2))})
    with pytest.raises(ValueError, match="has an image"):
        mean_scores(sums)


def test_a_part_without_heads_is_refused(world):
    with pytest.raises(ValueError, match="no heads in 'vision'"):
        head_measure(world[0], ("vision",))


def test_norms_are_those_of_the_weights_that_a_head_has_and_reads(world):
    model, params, _ = world
    attention, dim = params["layers"]["attention"], model.config.head_dim
    group = model.config.heads // model.config.kv_heads
    found = np.asarray(model.head_norms(params)["decoder"])
    for layer, head in ((0, 0), (2, 3)):
        own, read = slice(head * dim, (head + 1) * dim), slice(head // group * dim, (head // group + 1) * dim)
        kernels = {name: np.float64(attention[name]["kernel"][layer]) for name in ("query", "key", "value", "output")}
        parts = [kernels["query"][:, own], kernels["key"][:, read], kernels["value"][:, read], kernels["output"][own]]
        np.testing.assert_allclose(found[layer, head], np.sqrt(sum((part**2).sum() for part in parts)), rtol=1e-5)


def test_criteria_rank_by_what_they_are_called():
    facts = HeadFacts(scores([[1.0, 3.0]], [[0.4, 0.9]]), {"decoder": np.array([[5.0, 2.0]])}, 0.5, seed=1)
    ranks = {name: CRITERIA[name](facts)["decoder"].argmin() for name in ("importance", "entropy", "magnitude")}
    assert ranks == {"importance": 0, "entropy": 1, "magnitude": 1}
    draws = [CRITERIA["random"](facts._replace(seed=n))["decoder"] for n in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).all()


def test_heads_that_are_closed_already_are_no_part_of_what_others_are_measured_in(world):
    model, params, batch = world
    kept = open_gates(model)["decoder"]
    kept[0, 1] = 0
    measure = head_measure(model, PARTS, 4)
    found = head_sums(measure, params, [batch], {"decoder": kept})
    without = model.with_gates(params, {"decoder": kept})
    expected = head_sums(measure, without, [batch], open_gates(model))
    there = kept > 0
    for name in ("importance", "entropy"):
        mine, theirs = (getattr(sums, name)["decoder"][there] for sums in (found, expected))
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-7)


def test_heads_of_a_tower_are_scored_with_those_of_the_decoder(tmp_path):
    """Rows without an image have importance 0 there, and no entropy."""
    folder = tiny_qwen_vl.folder(tmp_path / "hf")
    model, params = load_pretrained(folder)
    picture = tiny_tiles.picture(tmp_path / "a.png", 25, 43)
    talks = [tiny_tiles.conversation(picture), tiny_tiles.conversation()]
    rows = tiny_tiles.batch(load_processor(folder, model.config), talks, 64, 44)
    weights = np.float32((rows.segments > 0) & (np.roll(rows.segments, -1, axis=1) > 0))
    batch = Batch(rows.tokens, np.roll(rows.tokens, -1, axis=1), weights, rows.positions, rows.segments, rows.images)
    sums = head_sums(head_measure(model, ("decoder", "vision"), 16), params, [batch], open_gates(model))
    assert sums.examples == 2
    assert (sums.measured["vision"] == 1).all()
    assert (sums.measured["decoder"] == 2).all()
    count = model.heads["vision"]
    for layer, head in ((0, 0), (count.layers - 1, 1)):
        direction = np.zeros((count.layers, count.heads), np.float32)
        direction[layer, head] = 1

        def losses(step, direction=direction):
            return mean_losses(model, params, batch, {"vision": 1 + step * direction})

        slopes = np.asarray(jax.jvp(losses, (0.0,), (1.0,))[1])
        assert slopes[1] == 0
        np.testing.assert_allclose(sums.importance["vision"][layer, head], np.abs(slopes).sum(), rtol=1e-3)
