"""The decoder against PyTorch transformers on tiny random models."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

import tests.support.tiny as tiny
from merit_jax.models import export_hf, leaf_keys, load_pretrained, open_pretrained
from merit_jax.models.families.registry import parse_config
from tests.support.head_entropies import mean_entropies

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
    "llama_linear": {
        "family": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 5000.0},
    },
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


@pytest.mark.parametrize("case", ["llama", "qwen2_windows", *tiny.OF_FAMILY])
def test_entropies_are_those_of_the_probabilities_of_pytorch(tmp_path, case):
    torch = pytest.importorskip("torch")
    peer, model, params = make(tmp_path / "hf", **CASES[case])
    peer.set_attn_implementation("eager")
    batch = tiny.rows(15, 9, width=15)
    mask = torch.from_numpy(batch.segments).long()
    seen = peer(input_ids=torch.from_numpy(batch.tokens).long(), attention_mask=mask, output_attentions=True).attentions
    hidden, found = model.head_entropies(params, batch)
    np.testing.assert_allclose(hidden, model.hidden(params, batch), atol=1e-5)
    expected = mean_entropies([layer.detach().numpy() for layer in seen], batch.segments)
    np.testing.assert_allclose(found["decoder"].mean, expected, atol=1e-5)


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
            grad = np.asarray(leaves[path])[place.at]
            peer_grad = peer_part(peers, place)
            error = np.linalg.norm((grad.T if place.transpose else grad) - peer_grad)
            assert error <= 1e-3 * np.linalg.norm(peer_grad), f"{place.key}: error {error}"


@pytest.mark.parametrize("case", ["llama", *tiny.OF_FAMILY])
def test_decoding_with_a_cache_gives_the_logits_of_whole_rows(tmp_path, case):
    _, model, params = make(tmp_path / "hf", **CASES[case])
    lengths, width = (12, 9), 16
    batch = tiny.rows(*lengths, width=width)
    whole = tiny.logits(
        model, params, tiny.Rows(batch.tokens, np.arange(width)[None].repeat(2, 0), np.ones_like(batch.tokens))
    )
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
    found = [load_file(tmp_path / name / "model.safetensors") for name in ("hf", "out")]
    before, after = ({key: tensor.tobytes() for key, tensor in tensors.items()} for tensors in found)
    assert before == after


def test_a_cache_past_the_original_context_of_longrope_is_refused(tmp_path):
    """`transformers` reads the whole text again there, with the other frequencies."""
    _, model, params = make(tmp_path / "hf", **CASES["phi3"])
    model.prefill(params, tiny.rows(9, width=9), model.init_cache(1, 16))
    with pytest.raises(ValueError, match=r"room for 17 tokens.*original_max_position_embeddings = 16.*max_new_tokens"):
        model.init_cache(1, 17)


def test_experts_in_one_tensor_are_told_as_such(tmp_path):
    peer, _, _ = make(tmp_path / "hf", **CASES["mixtral"])
    peer.save_pretrained(tmp_path / "stacked", save_original_format=False)
    with pytest.raises(ValueError, match=r"gate_up_proj' holds all experts of a layer.*save_original_format"):
        load_pretrained(tmp_path / "stacked")


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("phi3", {"original_max_position_embeddings": 1}, "original_max_position_embeddings = 1; expected 2 or more"),
        ("llama", {"rope_parameters": tiny.YARN | {"beta_fast": -1.0}}, "beta_fast = -1.0; expected more than 0"),
        ("llama", {"rope_parameters": tiny.YARN | {"rope_theta": 1.0}}, "rope_theta = 1.0; expected more than 1"),
    ],
)
def test_a_scaling_that_cannot_be_computed_is_refused_by_its_key(family, changes, message):
    raw = tiny.hf_config(family) | changes
    with pytest.raises(ValueError, match=message):
        parse_config({key: value for key, value in raw.items() if value is not None}, "config.json")
