"""Adapters of PEFT read with their base: the weights that PEFT makes of both, or a refusal that names what is not computed."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tests.support.tiny as tiny
from merit_jax.models import StoredTensors
from merit_jax.models.io.peft_config import read_peft_config
from merit_jax.models.pretrained.peft_folder import AdaptedTensors

QUERY, DOWN = "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"


def adapter(path, parts=None, **config):
    """A LoRA of rank 2 on one projection, written without PEFT; `parts` replace its tensors."""
    path.mkdir()
    rng = np.random.default_rng(0)
    tensors = {
        f"base_model.model.{QUERY}.lora_A.weight": rng.normal(0, 1, (2, 24)).astype(np.float32),
        f"base_model.model.{QUERY}.lora_B.weight": rng.normal(0, 1, (24, 2)).astype(np.float32),
    }
    content = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", "target_modules": ["q_proj"], **config}
    (path / "adapter_config.json").write_text(json.dumps(content))
    save_file(tensors if parts is None else parts, path / "adapter_model.safetensors")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return StoredTensors(tiny.folder(tmp_path_factory.mktemp("base") / "hf"))


def test_a_weight_is_the_base_plus_the_scaled_product_and_the_others_are_the_base(tmp_path, base):
    found = AdaptedTensors(adapter(tmp_path / "a"), base)
    stored = load_file(tmp_path / "a/adapter_model.safetensors")
    a, b = (stored[f"base_model.model.{QUERY}.lora_{part}.weight"] for part in "AB")
    np.testing.assert_allclose(found.read(f"{QUERY}.weight"), base.read(f"{QUERY}.weight") + 3 * b @ a, atol=1e-5)
    others = [key for key in base.specs if key != f"{QUERY}.weight"]
    assert all(found.read(key).tobytes() == base.read(key).tobytes() for key in others)
    assert found.paths() == base.paths()


def test_the_scale_is_that_of_the_first_pattern_that_matches_the_end_of_a_name(tmp_path):
    config = {
        "rank_pattern": {"layers.1.*q_proj": 3, "q_proj": 5},
        "alpha_pattern": {"q_proj": 9, "1.mlp.down_proj": 4},
    }
    found = read_peft_config(adapter(tmp_path / "a", r=4, use_rslora=True, **config))
    assert [found.rank_of(name) for name in (QUERY, "model.layers.0.self_attn.q_proj", DOWN)] == [3, 5, 4]
    assert found.scale_of(QUERY) == pytest.approx(9 / 3**0.5)
    assert found.scale_of(DOWN) == pytest.approx(4 / 2)
    assert found.scale_of("model.layers.0.mlp.down_proj") == pytest.approx(6 / 2)


REFUSED = {
    "peft_type = 'IA3'": {"peft_type": "IA3"},
    "init_lora_weights = 'pissa' changes the base": {"init_lora_weights": "pissa"},
    "bias = 'lora_only': trained biases": {"bias": "lora_only"},
    "alora_invocation_tokens = ": {"alora_invocation_tokens": [1, 2]},
    "trainable_token_indices = ": {"trainable_token_indices": [3]},
    "target_parameters = ": {"target_parameters": ["mlp.experts.gate_up_proj"]},
    "layer_replication = ": {"layer_replication": [[0, 2], [1, 3]]},
    "lora_bias = True": {"lora_bias": True},
    "use_qalora = True": {"use_qalora": True},
    "a_key_of_tomorrow = 1": {"a_key_of_tomorrow": 1},
    "r = 0; expected a number above 0": {"r": 0},
    "alpha_pattern: '(' is no regular expression": {"alpha_pattern": {"(": 2}},
    "has rank 2, and adapter_config.json says 3": {"rank_pattern": {"q_proj": 3}},
    "lora_magnitude_vector is missing; the adapter is incomplete": {"use_dora": True},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_computed_as_peft_does_is_refused_by_its_key(tmp_path, base, message):
    with pytest.raises(ValueError, match=r"adapter_(config\.json|model\.safetensors): ") as error:
        AdaptedTensors(adapter(tmp_path / "a", **REFUSED[message]), base)
    assert message in str(error.value)


def test_tensors_that_do_not_fit_are_named(tmp_path, base):
    a, b = np.ones((2, 24), np.float32), np.ones((24, 2), np.float32)
    lora, other = f"base_model.model.{QUERY}.lora_", "base_model.model.model.layers.7.self_attn.q_proj.lora_"
    cases = {
        "lora_B is missing": {f"{lora}A.weight": a},
        r"A \[2, 23\] and B \[24, 2\] do not fit \[24, 24\]": {
            f"{lora}A.weight": a[:, 1:].copy(),
            f"{lora}B.weight": b,
        },
        r"layers\.7\.self_attn\.q_proj\.weight is no tensor of": {f"{other}A.weight": a, f"{other}B.weight": b},
        "its name begins with 'base_model.model.'": {f"{QUERY}.lora_A.weight": a},
        "is no part of a LoRA, and not of modules_to_save": {
            "base_model.model.lm_head.weight": np.ones((61, 24), "f4")
        },
        "is an update of a convolution": {f"{lora}A.weight": a[..., None, None], f"{lora}B.weight": b[..., None, None]},
    }
    for number, (message, parts) in enumerate(cases.items()):
        with pytest.raises(ValueError, match=message):
            AdaptedTensors(adapter(tmp_path / str(number), parts), base)


def test_modules_stored_whole_take_the_place_of_the_bases_unless_their_shape_differs_or_they_are_tied(tmp_path, base):
    head = np.full((61, 24), 0.5, np.float32)
    parts = {"base_model.model.lm_head.weight": head}
    found = AdaptedTensors(adapter(tmp_path / "a", parts, modules_to_save=["lm_head"]), base)
    assert found.read("lm_head.weight").tobytes() == head.tobytes()
    longer = {"base_model.model.lm_head.weight": np.ones((62, 24), np.float32)}
    with pytest.raises(
        ValueError, match=r"lm_head.weight is \[62, 24\], and \[61, 24\] in the base: tokens were added"
    ):
        AdaptedTensors(adapter(tmp_path / "b", longer, modules_to_save=["lm_head"]), base)
    tied = StoredTensors(tiny.folder(tmp_path / "tied", tie_word_embeddings=True))
    table = {"base_model.model.model.embed_tokens.weight": head}
    with pytest.raises(ValueError, match=r"changes model.embed_tokens.weight, which the base ties"):
        AdaptedTensors(adapter(tmp_path / "c", table, modules_to_save=["embed_tokens"]), tied)


CASES = {
    "lora": {"r": 3, "lora_alpha": 7},
    "rslora": {"r": 3, "lora_alpha": 7, "use_rslora": True},
    "dora": {"r": 3, "lora_alpha": 7, "use_dora": True},
    "patterns": {
        "r": 3,
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 4},
        "alpha_pattern": {r"layers\.0.*": 5},
        "use_rslora": True,
    },
    "embedding and head": {"r": 3, "target_modules": ["embed_tokens", "q_proj", "lm_head"]},
    "whole modules": {"r": 3, "modules_to_save": ["lm_head", "norm"]},
}


def of_peft(path, model, **config):
    """An adapter of PEFT with random numbers, saved by it; and the weights of the model that PEFT makes of both."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    model = peft.get_peft_model(model, peft.LoraConfig(**{"target_modules": ["q_proj", "down_proj"], **config}))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0.5 if "magnitude" in name else 0.0, 0.3)
    model.save_pretrained(path)
    return {name: leaf.detach().numpy() for name, leaf in model.merge_and_unload().state_dict().items()}


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
def test_every_weight_is_the_one_that_peft_makes(tmp_path, case):
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    folder = tiny.folder(tmp_path / "hf")
    expected = of_peft(tmp_path / "a", AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), **CASES[case])
    base = StoredTensors(folder)
    found = AdaptedTensors(tmp_path / "a", base)
    changed = [key for key in base.specs if found.read(key).tobytes() != base.read(key).tobytes()]
    assert changed
    for key in base.specs:
        np.testing.assert_allclose(found.read(key), expected[key], atol=2e-5, err_msg=key)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("dora", [False, True])
def test_weights_that_are_stored_in_by_out_as_gpt2s_get_the_product_the_other_way(tmp_path, dora):
    pytest.importorskip("torch")
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=16, n_embd=12, n_layer=1, n_head=2))
    model.save_pretrained(tmp_path / "hf")
    config = {"target_modules": ["c_attn", "c_proj"], "r": 2, "fan_in_fan_out": True, "use_dora": dora}
    expected = of_peft(tmp_path / "a", model, **config)
    base = StoredTensors(tmp_path / "hf")
    found = AdaptedTensors(tmp_path / "a", base)
    assert sorted(found.updates) == sorted(
        key for key in base.specs if "c_attn.weight" in key or "c_proj.weight" in key
    )
    for key in base.specs:
        np.testing.assert_allclose(found.read(key), expected[key], atol=2e-5, err_msg=key)
