"""Every key of every family's config, changed one at a time, against PyTorch: the same logits, or refused by name."""

import copy
import json

import pytest

import tests.support.tiny as tiny
import tests.support.tiny_qwen3_vl as qwen3
import tests.support.tiny_qwen_vl as qwen
import tests.support.tiny_tiles as tiny_tiles
from merit_jax.models import read_config
from merit_jax.models.families import decoder_parsing
from merit_jax.models.families import qwen as text
from merit_jax.models.families.decoders import DECODERS
from merit_jax.models.families.registry import FAMILIES
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.models.processing.image_loading import open_image
from tests.support.config_sweep import Case, Sweep

pytestmark = pytest.mark.parity

LLAMA3 = {**tiny.LLAMA3, "original_max_position_embeddings": 8}
WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
NESTED = {key: value for key, value in qwen.hf_config().items() if key not in qwen.TEXT} | {"text_config": qwen.TEXT}
FEWER = {
    family: {"layer_types": fields["layer_types"][:2]}
    for family, fields in tiny.OF_FAMILY.items()
    if "layer_types" in fields
}
TEXT = {
    **{family: tiny.hf_config(family, num_hidden_layers=2, **FEWER.get(family, {})) for family in DECODERS},
    "llama, scaled": tiny.hf_config(num_hidden_layers=2, rope_theta=None, rope_parameters=LLAMA3),
    "qwen2, window": tiny.hf_config("qwen2", num_hidden_layers=2, **WINDOW),
}
IMAGES = {
    "qwen2_5_vl": NESTED,
    "qwen2_5_vl, published layout": qwen.hf_config(),
    "qwen3_vl": qwen3.hf_config(),
    **{kind: tiny_tiles.hf_config(kind) for kind in tiny_tiles.KINDS},
}
TWINS = {"qwen2_5_vl, published layout": "qwen2_5_vl", "siglip": "clip", "smolvlm": "idefics3"}
"""Case -> one that differs from it in the tower or the layout alone."""
DECODER_ELSEWHERE = (*TWINS, "gemma3")
"""Cases whose decoder's keys are not swept again: those with a twin, and Gemma 3's decoder, which is "gemma3_text"."""
PATCHES = ("qwen2_5_vl", "qwen3_vl")
"""Families whose images are patches in a row."""
LONG, SHORT = 14, 9


def make(path, name):
    """A folder saved by transformers with no constant parameter, under the config.json of a case."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    raw = copy.deepcopy((TEXT | IMAGES)[name])
    auto = AutoModelForCausalLM if name in TEXT else AutoModelForImageTextToText
    torch.manual_seed(0)
    peer = auto.from_config(AutoConfig.for_model(**copy.deepcopy(raw)))
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(0.1, 0.5)
    peer.save_pretrained(path)
    (path / "config.json").write_text(json.dumps(raw))
    return with_text(path, raw, auto) if name in TEXT else with_images(path, name, raw, auto)


def with_text(path, raw, auto):
    rows = tiny.rows(LONG, SHORT, width=LONG)
    return Case(path, raw, auto, inputs(rows), lambda folder, config: rows)


def with_images(path, name, raw, auto):
    if raw["model_type"] in PATCHES:
        qwen.helpers(path)
    else:
        tiny_tiles.helpers(path, name)
    pictures = [tiny_tiles.picture(path / f"{n}.png", *size, seed=n) for n, size in enumerate([(17, 33), (30, 14)])]
    talks = [tiny_tiles.conversation(*pictures), tiny_tiles.conversation()]

    def rows(folder, config):
        return tiny_tiles.batch(load_processor(folder, config), talks, 80, 44)

    batch = rows(path, read_config(path))
    return Case(path, raw, auto, inputs(batch) | pixels(path, raw, batch, pictures), rows)


def inputs(rows):
    torch = pytest.importorskip("torch")
    return {
        "input_ids": torch.from_numpy(rows.tokens).long(),
        "attention_mask": torch.from_numpy(rows.segments).long(),
    }


def pixels(path, raw, rows, pictures):
    """The images of the first of two rows, as transformers' own processor makes them."""
    torch = pytest.importorskip("torch")
    from transformers import AutoImageProcessor

    images = [open_image(picture) for picture in pictures]
    nested = raw["model_type"] in ("idefics3", "smolvlm")
    processor = AutoImageProcessor.from_pretrained(path, backend="pil")
    found = dict(processor(images=[images, []] if nested else images, return_tensors="pt"))
    if raw["model_type"] in PATCHES:
        found["mm_token_type_ids"] = torch.from_numpy(rows.tokens == raw["image_token_id"]).int()
    if raw["model_type"] == "gemma3":
        del found["num_crops"]
        found["token_type_ids"] = torch.from_numpy(rows.tokens == raw["image_token_index"]).int()
    return found


def test_every_family_is_swept():
    assert {raw["model_type"] for raw in (TEXT | IMAGES).values()} == set(FAMILIES)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """Case -> its sweep, parsed."""
    made = {}

    def make_sweep(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("sweep")
            made[name] = Sweep(make(folder / "base", name), folder / "changed")
            made[name].parse(lambda change: name not in DECODER_ELSEWHERE or change.place[0] != "text_config")
        return made[name]

    return make_sweep


@pytest.mark.parametrize("name", TEXT | IMAGES)
def test_no_key_that_pytorch_obeys_is_ignored(sweeps, name):
    sweep = sweeps(name)
    assert not sweep.wrong
    if name not in DECODER_ELSEWHERE:
        activation = "hidden_activation" if name == "gemma3_text" else "hidden_act"
        assert {"is_causal", activation, "rope_scaling", "per_layer_config"} <= keys(sweep.refused)
        theta = set() if name in ("olmo3", "gemma3_text") else {"rope_theta"}  # theirs differs by layer type
        assert {"rms_norm_eps", "tie_word_embeddings"} | theta <= keys(sweep.computed) | keys(sweep.refused)
        assert {"use_cache", "initializer_range", "bos_token_id"} <= keys(sweep.equal)
    assert {"is_causal", "per_layer_config"} <= keys(sweep.refused)
    assert all("config.json: " in message for message in sweep.refused.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TEXT | IMAGES if name not in TWINS])
def test_every_key_that_is_obeyed_gives_the_logits_of_pytorch(sweeps, name):
    """A decoder in a vision-language model is that of its text family, where its keys are computed; Qwen3-VL's is none."""
    sweep = sweeps(name)
    sweep.compute(lambda change: change.place[0] != "text_config" or name == "qwen3_vl")
    assert not sweep.wrong
    assert sum(moved > 0.01 for moved in sweep.equal.values()) >= (5 if name in TEXT else 1)


@pytest.mark.parametrize("key", ["hidden_act", "layer_types"])
def test_the_sweep_finds_a_key_that_is_ignored(tmp_path, monkeypatch, key):
    if key == "hidden_act":
        monkeypatch.setattr(decoder_parsing, "ACTIVATIONS", (*decoder_parsing.ACTIVATIONS, "relu"))
        own = text.qwen2_settings
        monkeypatch.setattr(text, "qwen2_settings", lambda full: {**own(full), "activation": "silu"})
    else:
        monkeypatch.setattr(text, "layers", lambda full: {"rope": text.one_rope(full)})
    sweep = Sweep(make(tmp_path / "base", "qwen2, window"), tmp_path / "changed")
    sweep.parse(lambda change: change.place == (key,))
    assert sweep.wrong
    assert keys(sweep.wrong) == {key}


def keys(changes):
    return {change.place[-1] for change in changes}
