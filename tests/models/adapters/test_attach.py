"""Adapters on models: what is attached, that it starts at theta0, trains, and equals the model it is written into."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.support.tiny as tiny
from merit_jax.core import tree
from merit_jax.models import build
from merit_jax.models.adapters.forms import FORMS
from merit_jax.models.build_model import override
from merit_jax.models.families.registry import parse_config
from merit_jax.models.modules import layers
from tests.support import tiny_vision

pytest.importorskip("qwix")

RANK, ALPHA, TARGETS = 3, 6.0, ("attention/(query|value)", "mlp/down")
SCALES = {"lora": 2.0, "rslora": 6 / 3**0.5, "dora": 2.0, "qlora": 2.0, "qrslora": 6 / 3**0.5, "qdora": 2.0}
ROWS = tiny.rows(5, 7, width=8)


@pytest.fixture(scope="module")
def plain():
    model = tiny.compiled(build(tiny.config(layers=2, remat="dots")))
    return model, tree.flatten(tiny.params(model))


def adapted(model, form, **changes):
    options = {"rank": RANK, "alpha": ALPHA, "targets": TARGETS, **changes}
    return model.adapted(form, *options.values())


def held(adapter, params):
    """theta0 as training holds it, and the same numbers as plain arrays."""
    frozen = {path: adapter.stored(path, jnp.asarray(leaf)) for path, leaf in params.items()}
    numbers = {path: dequantised(leaf) if path in adapter.four_bits else leaf for path, leaf in frozen.items()}
    return frozen, {path: np.asarray(leaf) for path, leaf in numbers.items()}


def dequantised(leaf):
    import qwix

    return jax.vmap(qwix.dequantize)(leaf.array)


@pytest.mark.parametrize("form", FORMS)
def test_a_trained_adapter_equals_the_model_that_it_is_written_into(plain, form):
    model, params = plain
    adapter = adapted(model, form)
    frozen, numbers = held(adapter, params)
    hidden = jax.jit(lambda leaves: adapter.model.hidden(tree.join(leaves, frozen), ROWS))
    start, rng = adapter.start(0, numbers.__getitem__), np.random.default_rng(0)
    np.testing.assert_allclose(hidden(start), model.hidden(tree.unflatten(numbers), ROWS), atol=2e-6)

    moved = {path: (leaf + rng.normal(0, 0.1, leaf.shape)).astype(np.float32) for path, leaf in start.items()}
    folded = {**numbers, **{path: adapter.fold(path, numbers[path], moved.__getitem__) for path in adapter.kernels}}
    np.testing.assert_allclose(hidden(moved), model.hidden(tree.unflatten(folded), ROWS), atol=2e-6)

    kernel = "layers/mlp/down/kernel"
    a, b = (moved[kernel + end].astype(np.float64) for end in ("_lora_a", "_lora_b"))
    expected = numbers[kernel] + SCALES[form] * a @ b
    if "dora" in form:
        lengths = np.sqrt((expected**2).sum(axis=1, keepdims=True))
        expected = expected * moved[kernel + "_dora_magnitude"][:, None] / lengths
    np.testing.assert_allclose(folded[kernel], expected, rtol=2e-5, atol=1e-6)
    assert sorted(adapter.kernels) == [
        "layers/attention/query/kernel",
        "layers/attention/value/kernel",
        "layers/mlp/down/kernel",
    ]


@pytest.mark.parametrize("form", ["lora", "qdora"])
def test_at_the_start_only_b_and_the_lengths_have_a_gradient_and_it_is_that_of_the_kernel_times_a(plain, form):
    model, params = plain
    adapter = adapted(model, form)
    frozen, numbers = held(adapter, params)
    start = adapter.start(0, numbers.__getitem__)
    loss = lambda hidden: (hidden * jnp.arange(hidden.size).reshape(hidden.shape) % 7).sum()  # noqa: E731
    found = jax.jit(jax.grad(lambda leaves: loss(adapter.model.hidden(tree.join(leaves, frozen), ROWS))))(start)
    whole = tree.flatten(jax.jit(jax.grad(lambda p: loss(model.hidden(p, ROWS))))(tree.unflatten(numbers)))
    for kernel, (a, b, *lengths) in adapter.kernels.items():
        assert not np.asarray(found[a]).any()
        product = SCALES[form] * np.swapaxes(start[a], -1, -2) @ np.asarray(whole[kernel])
        np.testing.assert_allclose(found[b], product, rtol=1e-3, atol=1e-3 * np.abs(product).max())
        assert all(np.asarray(found[path]).any() for path in lengths)


def test_the_start_is_that_of_its_seed_and_of_each_leaf(plain):
    model, params = plain
    adapter = adapted(model, "lora", targets=("attention/(query|output)",))
    one, same, other = (adapter.start(seed, params.__getitem__) for seed in (0, 0, 1))
    a, second = (f"layers/attention/{name}/kernel_lora_a" for name in ("query", "output"))
    assert one[a].tobytes() == same[a].tobytes() != other[a].tobytes()
    assert one[a].shape == one[second].shape
    assert one[a].tobytes() != one[second].tobytes()
    assert np.abs(one[a]).max() <= 24**-0.5 < 1.2 * np.abs(one[a]).max()
    assert not one["layers/attention/query/kernel_lora_b"].any()


def test_generation_reads_the_adapter(plain):
    model, params = plain
    adapter = adapted(model, "lora")
    start = adapter.start(0, params.__getitem__)
    moved = {path: leaf + np.float32(0.05) for path, leaf in start.items()}
    joined = tree.join(moved, params)
    whole = jax.jit(adapter.model.hidden)(joined, ROWS)
    cache = adapter.model.init_cache(2, 8)
    prompt = tiny.Rows(*(part[:, :4] for part in ROWS[:3]))
    _, cache = jax.jit(adapter.model.prefill)(joined, prompt, cache)
    last, _ = jax.jit(adapter.model.decode)(joined, ROWS.tokens[:, 4:5], np.full((2, 1), 4, np.int32), cache)
    np.testing.assert_allclose(last[:, 0], whole[:, 4], atol=1e-5)


def test_a_pattern_without_a_kernel_is_named_with_kernels_that_are_there(plain):
    with pytest.raises(
        ValueError, match=r"adapter_targets: 'q_proj' matches no trainable kernel.*layers/attention/query"
    ):
        adapted(plain[0], "lora", targets=("mlp", "q_proj"))
    with pytest.raises(ValueError, match=r"'mlp' matches no trainable kernel"):
        plain[0].adapted("lora", RANK, ALPHA, ("mlp",), ("attention",))
    with pytest.raises(ValueError, match="adapter_targets is empty"):
        adapted(plain[0], "lora", targets=())


def test_a_rank_that_is_not_below_the_sides_of_a_kernel_is_refused(plain):
    with pytest.raises(
        ValueError, match=r"adapter_rank = 8: layers/attention/value/kernel has 24 inputs and 8 outputs"
    ):
        adapted(plain[0], "lora", rank=8)


def test_a_product_that_qwix_does_not_find_is_an_error(plain, monkeypatch):
    product = lambda x, kernel, dims, preferred_element_type=None: jnp.matmul(x, kernel)  # noqa: E731
    lax = SimpleNamespace(dot_general=product, rsqrt=jax.lax.rsqrt)
    monkeypatch.setattr(layers, "jax", SimpleNamespace(lax=lax, nn=jax.nn, Array=jax.Array))
    with pytest.raises(
        ValueError, match=r"match layers/attention/query/kernel and 2 more, whose product qwix does not find"
    ):
        adapted(build(override(plain[0].config, {"scan_unroll": 2})), "lora")


def test_frozen_kernels_are_the_nearest_of_the_levels_of_nf4_times_the_largest_of_their_tile(plain):
    model, params = plain
    adapter = adapted(model, "qlora")
    kernel = "layers/mlp/down/kernel"
    stored, whole = adapter.stored(kernel, jnp.asarray(params[kernel])), params[kernel]
    assert stored.array.qvalue.dtype == jnp.uint4
    tiles = whole.reshape(2, -1, 40, whole.shape[-1])
    scale = np.abs(tiles).max(axis=2, keepdims=True)
    below = [-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004]
    above = [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1]
    levels = np.array([*below, 0, *above])
    nearest = levels[np.abs((tiles / scale)[..., None] - levels).argmin(axis=-1)] * scale
    np.testing.assert_allclose(np.asarray(dequantised(stored)).reshape(tiles.shape), nearest, atol=1e-6)
    other = jnp.asarray(whole)
    assert adapter.stored("layers/mlp/up/kernel", other) is other


def test_bfloat16_computation_keeps_float32_leaves(plain):
    model = build(override(plain[0].config, {"dtype": "bfloat16"}))
    adapter = adapted(model, "dora")
    start = adapter.start(0, plain[1].__getitem__)
    total = lambda leaves: adapter.model.hidden(tree.join(leaves, plain[1]), ROWS).astype(jnp.float32).var()  # noqa: E731
    found = jax.jit(jax.grad(total))(start)
    assert {leaf.dtype for leaf in found.values()} == {np.dtype(np.float32)}


def test_towers_have_adapters_too(tmp_path):
    raw = json.loads((tiny_vision.folder(tmp_path / "vl") / "config.json").read_text())
    model = build(parse_config(raw, "config.json"))
    found = model.adapted("lora", 2, 4.0, ("attention|mlp",))
    assert {path.partition("/")[0] for path in found.kernels} == {"decoder", "vision"}
