"""The decoder's own laws: masks, packing, cache, switches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.support.tiny as tiny
from merit_jax.models import CACHE_ROW_AXIS, Rope, build


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_packed_examples_score_as_they_do_alone(family):
    model = tiny.model(family)
    params = tiny.params(model)
    batch = tiny.rows(5, 4, width=5)
    first, second = batch.tokens[0], batch.tokens[1, :4]
    together = tiny.logits(model, params, tiny.packed(first, second, width=11))
    alone = tiny.logits(model, params, batch)
    np.testing.assert_allclose(together[0, :5], alone[0], atol=1e-5)
    np.testing.assert_allclose(together[0, 5:9], alone[1, :4], atol=1e-5)
    assert np.isfinite(together).all()


def test_a_token_sees_no_later_token_and_no_padding():
    model = tiny.model()
    params = tiny.params(model)
    batch = tiny.rows(4, width=6)
    other = batch._replace(tokens=batch.tokens.copy())
    other.tokens[0, 3:] = 9
    np.testing.assert_array_equal(tiny.logits(model, params, batch)[0, :3], tiny.logits(model, params, other)[0, :3])
    assert (tiny.logits(model, params, batch)[0, 3] != tiny.logits(model, params, other)[0, 3]).any()


@pytest.mark.parametrize("changes", [{"scan_unroll": True}, {"scan_unroll": True, "remat": "full"}])
def test_switches_change_neither_the_loss_nor_its_gradient(changes):
    batch = tiny.rows(6, 3, width=6)

    def gradient(model):
        return jax.jit(jax.value_and_grad(lambda p: model.unembed(p, model.hidden(p, batch)).var()))(tiny.params(model))

    (a, grads_a), (b, grads_b) = gradient(tiny.model()), gradient(build(tiny.config(), **changes))
    np.testing.assert_allclose(a, b, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), grads_a, grads_b)


def greedy_without_cache(model, params, prompt, steps):
    tokens = list(prompt)
    for _ in range(steps):
        batch = tiny.packed(np.array(tokens), width=9)
        tokens.append(int(tiny.logits(model, params, batch)[0, len(tokens) - 1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_greedy_decoding_with_cache_equals_without_for_prompts_of_different_lengths(family):
    model = tiny.model(family)
    params, lengths, steps = tiny.params(model), np.array([5, 2, 3], np.int32), 4
    batch = tiny.rows(*lengths, width=5)
    hidden, cache = model.prefill(params, batch, model.init_cache(3, 5 + steps))
    last = np.asarray(model.unembed(params, hidden))[np.arange(3), lengths - 1].argmax(-1)
    found = [last]
    for step in range(steps - 1):
        tokens, slots = jnp.asarray(found[-1][:, None], jnp.int32), jnp.asarray(lengths[:, None] + step)
        hidden, cache = model.decode(params, tokens, slots, cache)
        found.append(np.asarray(model.unembed(params, hidden))[:, 0].argmax(-1))
    for row, length in enumerate(lengths):
        expected = greedy_without_cache(model, params, batch.tokens[row, :length], steps)
        assert [int(tokens[row]) for tokens in found] == expected


def test_options_scored_after_one_shared_prefill_equal_whole_rows():
    model = tiny.model()
    params, prompts = tiny.params(model), tiny.rows(4, 2, width=4)
    lengths, options = np.array([4, 2]), tiny.rows(3, 3, 3, 3, width=3, seed=5).tokens
    _, cache = model.prefill(params, prompts, model.init_cache(2, 8))
    cache = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=CACHE_ROW_AXIS), cache)
    slots = jnp.asarray(np.repeat(lengths, 2)[:, None] + np.arange(3), jnp.int32)
    found, _ = model.decode(params, jnp.asarray(options), slots, cache)
    for row in range(4):
        length = lengths[row // 2]
        whole = np.concatenate([prompts.tokens[row // 2, :length], options[row]])
        expected = model.hidden(params, tiny.packed(whole, width=7))
        np.testing.assert_allclose(found[row], expected[0, length : length + 3], atol=2e-5)


def test_tokens_past_the_end_of_the_cache_leave_it_unchanged():
    model = tiny.model()
    params = tiny.params(model)
    _, cache = model.prefill(params, tiny.rows(3, width=3), model.init_cache(1, 4))
    _, after = model.decode(params, jnp.array([[5]], jnp.int32), jnp.array([[4]], jnp.int32), cache)
    jax.tree.map(np.testing.assert_array_equal, cache, after)
    assert not np.asarray(cache.k)[:, :, 3].any()


def test_init_makes_the_announced_tree_with_one_axis_name_per_dimension():
    model = build(tiny.config("qwen2"), param_dtype="bfloat16")
    params = jax.jit(model.init)(jax.random.key(0))
    made = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    assert made == model.abstract
    names = jax.tree.map(lambda told, axes: len(axes) == told.ndim, model.abstract, model.logical_axes)
    assert all(jax.tree.leaves(names))
    assert model.logical_axes["layers"]["attention"]["query"]["kernel"] == ("layers", "embed", "heads")
    assert type(params) is dict


def test_compute_dtype_leaves_params_and_logits_in_float32():
    model = tiny.model(dtype="bfloat16")
    params, batch = tiny.params(model), tiny.rows(4, width=4)
    hidden = model.hidden(params, batch)
    assert hidden.dtype == jnp.bfloat16
    assert model.init_cache(1, 2).k.dtype == jnp.bfloat16
    assert model.unembed(params, hidden).dtype == jnp.float32
    np.testing.assert_allclose(hidden, tiny.model().hidden(params, batch), atol=0.2)


def test_a_text_model_refuses_images():
    model = tiny.model()
    with pytest.raises(ValueError, match="reads text only"):
        model.hidden(tiny.params(model), tiny.rows(2, width=2)._replace(images=np.zeros(1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atention": "xla"}, "unknown model option 'atention'"),
        ({"attention": "flash"}, "attention = 'flash'"),
        ({"kv_heads": 4}, "not a multiple of kv_heads"),
        ({"head_dim": 5}, "must be even"),
        ({"scan_unroll": 0}, "scan_unroll = 0"),
        ({"remat": "all"}, "remat = 'all': expected one of none, dots, full"),
    ],
)
def test_bad_options_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(tiny.config(), **changes)


QWEN = {"family": "qwen2", "rope": Rope(1e6), "qkv_bias": True, "head_dim": 128}
PUBLISHED = {
    "Qwen2.5-3B": (
        QWEN
        | {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "layers": 36,
            "heads": 16,
            "kv_heads": 2,
            "mlp_size": 11008,
            "tied": True,
        },
        3_085_938_688,
    ),
    "Qwen2.5-7B": (
        QWEN | {"vocab_size": 152064, "hidden_size": 3584, "layers": 28, "heads": 28, "kv_heads": 4, "mlp_size": 18944},
        7_615_616_512,
    ),
    "SmolLM2-135M": (
        {
            "family": "llama",
            "vocab_size": 49152,
            "hidden_size": 576,
            "layers": 30,
            "heads": 9,
            "kv_heads": 3,
            "head_dim": 64,
        }
        | {"mlp_size": 1536, "rope": Rope(1e5), "tied": True},
        134_515_008,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_size(name):
    fields, expected = PUBLISHED[name]
    model = build(tiny.config(**fields))
    assert sum(leaf.size for leaf in jax.tree.leaves(model.abstract)) == expected
