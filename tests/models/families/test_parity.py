"""The decoder against PyTorch transformers on tiny random models."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors import safe_open

import tests.support.tiny as tiny
from merit_jax.models import export_hf, leaf_keys, load_pretrained, open_pretrained

pytestmark = pytest.mark.parity

CASES = {
    "llama": {"family": "llama"},
    "llama_tied": {"family": "llama", "tie_word_embeddings": True},
    "llama_wide_heads_mha": {"family": "llama", "head_dim": 8, "num_key_value_heads": 6},
    "llama3_rope": {"family": "llama", "rope_parameters": tiny.LLAMA3},
    "qwen2": {"family": "qwen2"},
    "qwen2_tied": {"family": "qwen2", "tie_word_embeddings": True},
    "qwen2_windows": {"family": "qwen2", "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    **{family: {"family": family} for family in tiny.OF_FAMILY},
    "qwen3_biases": {"family": "qwen3", "attention_bias": True},
    "llama_biases": {"family": "llama", "attention_bias": True, "mlp_bias": True},
    "llama_yarn": {"family": "llama", "rope_parameters": tiny.YARN},
    "llama_linear": {"family": "llama", "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 5000.0}},
}


def make(path, family, **changes):
    """A PyTorch model with no constant parameter, saved by transformers itself; and the same model here."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = tiny.hf_config(family, **changes)
    if "rope_parameters" in fields:
        del fields["rope_theta"]
    torch.manual_seed(0)
    peer = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).float().eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(0.1, 0.2)
    peer.save_pretrained(path)
    model, params = load_pretrained(path)
    return peer, tiny.compiled(model), params


def torch_logits(peer, tokens, mask):
    torch = pytest.importorskip("torch")
    return peer(input_ids=torch.from_numpy(tokens).long(), attention_mask=torch.from_numpy(mask).long()).logits


def peer_part(peers, place):
    """The part of a PyTorch model's tensors that a place stands for; PyTorch holds experts as one tensor."""
    key = place.key.replace("block_sparse_moe", "mlp")
    if found := re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)\.weight", key):
        stem, expert, name = found[1], int(found[2]), found[3]
        if name in ("w2", "down_proj"):
            return peers[f"{stem}.down_proj"][expert]
        gate, up = np.split(peers[f"{stem}.gate_up_proj"][expert], 2)
        return gate if name in ("w1", "gate_proj") else up
    return peers[key] if place.rows is None else peers[key][place.rows[0] : place.rows[1]]


@pytest.mark.parametrize("case", CASES)
def test_logits_of_padded_rows_equal_pytorch(tmp_path, case):
    peer, model, params = make(tmp_path / "hf", **CASES[case])
    batch = tiny.rows(40, 23, width=40)
    found = tiny.logits(model, params, batch)
    expected = torch_logits(peer, batch.tokens, batch.segments).detach().numpy()
    real = batch.segments > 0
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4)


@pytest.mark.parametrize("case", ["llama", "qwen2_tied", *tiny.OF_FAMILY])
def test_logits_of_packed_rows_equal_pytorch_on_separate_examples(tmp_path, case):
    peer, model, params = make(tmp_path / "hf", **CASES[case])
    batch = tiny.rows(7, 5, width=7)
    parts = [batch.tokens[0], batch.tokens[1, :5]]
    row = tiny.packed(*parts, width=14)
    found = tiny.logits(model, params, row)[0]
    expected = [torch_logits(peer, part[None], np.ones((1, len(part)), np.int32))[0].detach().numpy() for part in parts]
    np.testing.assert_allclose(found[:12], np.concatenate(expected), atol=1e-4)


@pytest.mark.parametrize("case", ["llama_tied", "qwen2", *tiny.OF_FAMILY])
def test_loss_gradients_equal_pytorch(tmp_path, case):
    torch = pytest.importorskip("torch")
    peer, model, params = make(tmp_path / "hf", **CASES[case])
    batch = tiny.rows(9, 6, width=9)
    targets = np.where(batch.segments > 0, np.roll(batch.tokens, -1, axis=1), -100)
    targets[[0, 1], [8, 5]] = -100

    def loss(p):
        scores = jax.nn.log_softmax(model.unembed(p, model.hidden(p, batch)))
        picked = jnp.take_along_axis(scores, jnp.maximum(targets, 0)[..., None], -1)[..., 0]
        return -jnp.where(targets >= 0, picked, 0).sum() / (targets >= 0).sum()

    scores = torch_logits(peer, batch.tokens, batch.segments)
    expected = torch.nn.functional.cross_entropy(scores.flatten(0, 1), torch.from_numpy(targets).long().flatten())
    expected.backward()
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    peers = {key: parameter.grad.numpy() for key, parameter in peer.named_parameters()}
    leaves = flatten_dict(grads, sep="/")
    for path, places in leaf_keys(model, tmp_path / "hf").items():
        for place in places:
            grad = np.asarray(leaves[path])[place.index]
            peer_grad = peer_part(peers, place)
            error = np.linalg.norm((grad.T if place.transpose else grad) - peer_grad)
            assert error <= 1e-3 * np.linalg.norm(peer_grad), f"{place.key}: error {error}"


@pytest.mark.parametrize("case", ["llama", *tiny.OF_FAMILY])
def test_decoding_with_a_cache_gives_the_logits_of_whole_rows(tmp_path, case):
    _, model, params = make(tmp_path / "hf", **CASES[case])
    lengths, width = (12, 9), 16
    batch = tiny.rows(*lengths, width=width)
    whole = tiny.logits(model, params, tiny.Rows(batch.tokens, np.arange(width)[None].repeat(2, 0), np.ones_like(batch.tokens)))
    hidden, cache = model.prefill(params, batch, model.init_cache(2, width))
    for step in range(3):
        slots = np.array(lengths)[:, None] + step
        tokens = np.take_along_axis(batch.tokens, slots, 1)
        hidden, cache = model.decode(params, tokens.astype(np.int32), slots.astype(np.int32), cache)
        found = np.asarray(model.unembed(params, hidden))[:, 0]
        expected = np.take_along_axis(whole, slots[..., None], 1)[:, 0]
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_a_folder_goes_round_bit_equal(tmp_path, case):
    make(tmp_path / "hf", **CASES[case])
    opened = open_pretrained(tmp_path / "hf")
    export_hf(tmp_path / "out", opened.read, opened)
    with safe_open(tmp_path / "hf/model.safetensors", "np") as one, safe_open(tmp_path / "out/model.safetensors", "np") as two:
        assert sorted(one.keys()) == sorted(two.keys())
        for key in one.keys():
            assert one.get_tensor(key).tobytes() == two.get_tensor(key).tobytes()
