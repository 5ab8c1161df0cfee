"""The chunked cross-entropy is the plain one, value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.core.loss import chunked_nll, token_nll

ROWS, LENGTH, WIDTH, VOCAB = 3, 10, 4, 11


def case(seed=0):
    rng = np.random.default_rng(seed)
    hidden = jnp.asarray(rng.normal(size=(ROWS, LENGTH, WIDTH)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(WIDTH, VOCAB)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, VOCAB, (ROWS, LENGTH)), jnp.int32)
    weights = (rng.random((ROWS, LENGTH)) < 0.4).astype(np.float32)
    weights[1] = 0
    return hidden, kernel, targets, jnp.asarray(weights)


def plain(hidden, kernel, targets, weights):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(hidden @ kernel), targets[..., None], -1)[..., 0]
    return -(chosen * weights).sum(-1)


@pytest.mark.parametrize("chunk", [1, 3, 4, 10, 64])
def test_chunks_change_neither_loss_nor_gradient(chunk):
    hidden, kernel, targets, weights = case()
    row_weights = jnp.array([1.0, 2.0, 3.0])

    def chunked(hidden, kernel):
        return (chunked_nll(lambda h: h @ kernel, hidden, targets, weights, chunk) * row_weights).sum()

    def direct(hidden, kernel):
        return (plain(hidden, kernel, targets, weights) * row_weights).sum()

    got, expected = (jax.value_and_grad(f, argnums=(0, 1))(hidden, kernel) for f in (chunked, direct))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


def test_rows_are_summed_apart_and_unsupervised_rows_are_zero():
    hidden, kernel, targets, weights = case()
    nll = chunked_nll(lambda h: h @ kernel, hidden, targets, weights, 4)
    np.testing.assert_allclose(nll, plain(hidden, kernel, targets, weights), rtol=1e-5)
    assert nll[1] == 0


def test_vmap_gives_the_same_losses():
    cases = [case(seed) for seed in range(2)]
    hidden, kernel, targets, weights = (jnp.stack(part) for part in zip(*cases, strict=True))
    got = jax.vmap(lambda h, k, t, w: chunked_nll(lambda x: x @ k, h, t, w, 4))(hidden, kernel, targets, weights)
    np.testing.assert_allclose(got, [plain(*case) for case in cases], rtol=1e-5)


def test_prompts_are_never_multiplied_with_the_vocabulary():
    hidden, kernel, targets, _ = case()
    seen = []

    def unembed(h):
        jax.debug.callback(lambda x: seen.append(x.shape), h)
        return h @ kernel

    last = jnp.zeros((ROWS, LENGTH)).at[:, -1].set(1)
    jax.block_until_ready(chunked_nll(unembed, hidden, targets, last, 2))
    jax.effects_barrier()
    assert len(seen) == 1


def test_log_likelihood_is_computed_in_float32():
    logits = jnp.zeros((1, 2**14), jnp.bfloat16)
    assert token_nll(logits, jnp.zeros(1, jnp.int32)) == pytest.approx(np.log(2**14), rel=1e-6)
