"""Gates and entropies of attention heads: what they do to the model, and what they cost where nothing asks for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.models import build, load_pretrained
from merit_jax.models.heads import HeadCount
from merit_jax.models.pretrained.processor import load_processor
from tests.support import tiny, tiny_qwen_vl, tiny_tiles


@pytest.fixture(scope="module")
def world():
    model = tiny.model("qwen2")
    return model, tiny.params(model), tiny.rows(7, 5, 1, width=8)


def ones(model):
    return {part: jnp.ones((count.layers, count.heads)) for part, count in model.heads.items()}


def test_gates_of_one_change_nothing(world):
    model, params, batch = world
    np.testing.assert_allclose(model.gated(ones(model)).hidden(params, batch), model.hidden(params, batch), atol=1e-6)


def test_without_gates_no_output_is_multiplied(world):
    model, params, batch = world

    def products(gates):
        return str(jax.make_jaxpr(model.gated(gates).hidden)(params, batch)).count(" mul ")

    assert str(jax.make_jaxpr(model.hidden)(params, batch)).count(" mul ") == products({})
    assert products(ones(model)) == products({}) + 1


def test_a_closed_gate_is_a_head_whose_output_rows_are_zero(world):
    model, params, batch = world
    dim, gates = model.config.head_dim, ones(model)["decoder"].at[1, 2].set(0)
    kernel = jnp.asarray(params["layers"]["attention"]["output"]["kernel"]).at[1, 2 * dim : 3 * dim].set(0)
    layers = {**params["layers"], "attention": {**params["layers"]["attention"], "output": {"kernel": kernel}}}
    expected = model.hidden({**params, "layers": layers}, batch)
    np.testing.assert_allclose(model.gated({"decoder": gates}).hidden(params, batch), expected, atol=1e-6)


def test_gates_of_rows_have_the_gradient_of_each_row_alone(world):
    model, params, batch = world
    count = model.heads["decoder"]

    def loss(gates, batch):
        hidden = model.gated({"decoder": gates}).hidden(params, batch)
        return (model.unembed(params, hidden) ** 2 * (batch.segments > 0)[..., None]).sum()

    together = jax.grad(loss)(jnp.ones((count.layers, len(batch.tokens), count.heads)), batch)

    def alone(row):
        return jax.grad(loss)(jnp.ones((count.layers, count.heads)), jax.tree.map(lambda x: x[None], row))

    np.testing.assert_allclose(together, jnp.moveaxis(jax.vmap(alone)(batch), 0, 1), rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_those_of_the_gated_model():
    model = tiny.model("qwen2", attention="chunked")
    params, batch = tiny.params(model), tiny.rows(6, width=6)
    gated = model.gated({"decoder": ones(model)["decoder"].at[0, 1].set(0)})
    np.testing.assert_allclose(gated.twice().hidden(params, batch), gated.hidden(params, batch), atol=1e-5)


def test_generation_goes_through_the_gates_too(world):
    model, params, _ = world
    batch = tiny.rows(6, width=6)
    gated = model.gated({"decoder": ones(model)["decoder"].at[0, 1].set(0)})
    whole = gated.hidden(params, batch)
    cached, _ = gated.prefill(params, batch, gated.init_cache(1, 6))
    np.testing.assert_allclose(cached, whole, atol=1e-5)


def test_entropy_is_that_of_probabilities_over_the_keys_that_a_query_sees(world):
    model, params, batch = world
    hidden, found = model.head_entropies(params, batch)
    np.testing.assert_allclose(hidden, model.hidden(params, batch), atol=1e-5)
    entropy = found["decoder"]
    assert entropy.mean.shape == (model.config.layers, 3, model.config.heads)
    np.testing.assert_array_equal(entropy.queries[0], [6, 4, 0])
    assert float(entropy.mean[:, 2].max()) == 0
    assert 0 < float(entropy.mean[:, :2].min()) < float(entropy.mean.max()) <= 1


def test_equal_scores_have_entropy_one(world):
    model, params, batch = world
    attention = params["layers"]["attention"]
    silent = {**attention, "query": jax.tree.map(jnp.zeros_like, attention["query"])}
    entropy = model.head_entropies({**params, "layers": {**params["layers"], "attention": silent}}, batch)[1]
    np.testing.assert_allclose(entropy["decoder"].mean[:, :2], 1, atol=1e-6)


def test_examples_of_a_row_have_the_entropies_that_they_have_alone(world):
    model, params, _ = world
    rng = np.random.default_rng(0)
    first, second = rng.integers(1, 20, 5), rng.integers(1, 20, 3)
    packed, alone = tiny.packed(first, second, width=10), [tiny.packed(x, width=10) for x in (first, second)]
    whole = model.head_entropies(params, packed)[1]["decoder"]
    parts = [model.head_entropies(params, rows)[1]["decoder"] for rows in alone]
    expected = sum(part.mean * part.queries[..., None] for part in parts) / 6
    np.testing.assert_allclose(whole.mean, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("gates", "message"),
    [({"vision": np.ones((2, 4))}, "has heads in decoder"), ({"decoder": np.ones((1, 4))}, "have shape")],
)
def test_gates_that_do_not_fit_are_refused(world, gates, message):
    with pytest.raises(ValueError, match=message):
        world[0].gated(gates)


def test_counts_name_the_heads_of_every_part(world):
    config = world[0].config
    assert world[0].heads == {"decoder": HeadCount(config.layers, config.heads, config.kv_heads)}


@pytest.mark.parametrize("kind", ["clip", "idefics3", "qwen2_5_vl"])
def test_heads_of_towers_are_gated_and_measured_like_those_of_decoders(tmp_path, kind):
    path = tmp_path / "hf"
    folder = tiny_qwen_vl.folder(path) if kind == "qwen2_5_vl" else tiny_tiles.folder(path, kind)
    model, params = load_pretrained(folder)
    processor = load_processor(folder, model.config)
    picture = tiny_tiles.picture(tmp_path / "a.png", 25, 43)
    talks = [tiny_tiles.conversation(picture), tiny_tiles.conversation()]
    batch = tiny_tiles.batch(processor, talks, 64, 44)
    count = model.heads["vision"]
    gates = {"vision": np.ones((count.layers, count.heads), np.float32)}
    gates["vision"][-1, 0] = 0
    hidden = model.gated(gates).hidden(params, batch)
    np.testing.assert_allclose(hidden, model.hidden(model.with_gates(params, gates), batch), atol=1e-5)
    assert np.abs(hidden - model.hidden(params, batch)).max() > 1e-4
    explicit, found = model.gated(gates).head_entropies(params, batch)
    np.testing.assert_allclose(explicit, hidden, atol=1e-5)
    mean, queries = found["vision"]
    assert mean.shape == (count.layers, 2, count.heads)
    assert (np.asarray(queries)[:, 0] > 0).all()
    assert not np.asarray(queries)[:, 1].any()
    of_rows = jnp.ones((count.layers, 2, count.heads)).at[-1, 0, 0].set(0)
    apart = model.gated({"vision": of_rows}).hidden(params, batch)
    np.testing.assert_allclose(apart[0], hidden[0], atol=1e-5)
    np.testing.assert_allclose(apart[1], model.hidden(params, batch)[1], atol=1e-5)


def test_one_layers_probabilities_are_held_at_a_time():
    """Twice the layers need no more memory for probabilities, which are the largest arrays."""
    rows, width, heads = 2, 256, 6

    def temporaries(layers):
        model = build(tiny.config("qwen2", layers=layers))
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tiny.rows(width, width, width=width))
        return jax.jit(model.head_entropies).lower(model.abstract, batch).compile().memory_analysis().temp_size_in_bytes

    probabilities = rows * heads * width * width * 4
    assert temporaries(8) - temporaries(4) < probabilities / 2
