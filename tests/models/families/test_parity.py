"""The decoder against PyTorch transformers on tiny random models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import tests.support.tiny as tiny
from merit_jax.models import leaf_keys, load_pretrained

pytestmark = pytest.mark.parity

CASES = {
    "llama": {"family": "llama"},
    "llama_tied": {"family": "llama", "tie_word_embeddings": True},
    "llama_wide_heads_mha": {"family": "llama", "head_dim": 8, "num_key_value_heads": 6},
    "llama3_rope": {"family": "llama", "rope_parameters": tiny.LLAMA3},
    "qwen2": {"family": "qwen2"},
    "qwen2_tied": {"family": "qwen2", "tie_word_embeddings": True},
}


def make(path, family, **changes):
    """A PyTorch model with no constant parameter, saved by transformers itself; and the same model here."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = tiny.hf_config(family, **changes)
    if "rope_parameters" in changes:
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


@pytest.mark.parametrize("case", CASES)
def test_logits_of_padded_rows_equal_pytorch(tmp_path, case):
    peer, model, params = make(tmp_path / "hf", **CASES[case])
    batch = tiny.rows(40, 23, width=40)
    found = tiny.logits(model, params, batch)
    expected = torch_logits(peer, batch.tokens, batch.segments).detach().numpy()
    real = batch.segments > 0
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4)


@pytest.mark.parametrize("case", ["llama", "qwen2_tied"])
def test_logits_of_packed_rows_equal_pytorch_on_separate_examples(tmp_path, case):
    peer, model, params = make(tmp_path / "hf", **CASES[case])
    batch = tiny.rows(7, 5, width=7)
    parts = [batch.tokens[0], batch.tokens[1, :5]]
    row = tiny.packed(*parts, width=14)
    found = tiny.logits(model, params, row)[0]
    expected = [torch_logits(peer, part[None], np.ones((1, len(part)), np.int32))[0].detach().numpy() for part in parts]
    np.testing.assert_allclose(found[:12], np.concatenate(expected), atol=1e-4)


@pytest.mark.parametrize("case", ["llama_tied", "qwen2"])
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
    peers, leaves = dict(peer.named_parameters()), flatten_dict(grads, sep="/")
    for path, places in leaf_keys(model, tmp_path / "hf").items():
        for place in places:
            grad = np.asarray(leaves[path] if place.layer is None else leaves[path][place.layer])
            peer_grad = peers[place.key].grad.numpy()
            error = np.linalg.norm((grad.T if place.transpose else grad) - peer_grad) / np.linalg.norm(peer_grad)
            assert error < 1e-3, f"{place.key}: relative error {error}"
