"""Tiny LLaVA, Idefics3 and SmolVLM folders with tokenizer and image processor, written without PyTorch; images; batches."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from merit_jax.core.types import Example, PackedExample
from merit_jax.models import Model, build
from merit_jax.models.families.registry import FAMILIES, parse_config
from merit_jax.models.io.weight_map import expand, leaf_shapes, tensor_shape
from merit_jax.models.modules.vision_language import VisionLanguage
from merit_jax.models.pretrained.processor import Processor
from tests.support.tiny import Rows

KINDS = ("clip", "siglip", "idefics3", "smolvlm", "gemma3")
SIDE, PATCH, LONGEST = 16, 4, 32
GRID = [f"<row_{line}_col_{column}>" for line in (1, 2) for column in (1, 2)]
AROUND = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
"""Gemma 3's names of the tokens before and behind an image."""
SPECIALS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *GRID]
WORDS = [
    "<pad>",
    "<unk>",
    "user:",
    "assistant:",
    "<end>",
    "a",
    "red",
    "blue",
    "square",
    "what",
    "is",
    "this",
    "and",
    "that",
    "?",
]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ ' ' + part['text'] + ' ' }}{% endif %}"
    "{% endfor %}<end> {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXT = {
    "vocab_size": len(WORDS) + len(SPECIALS),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "intermediate_size": 40,
    "rope_theta": 5000.0,
}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def hf_config(kind: str, *, text: str = "llama", **changes: Any) -> dict[str, Any]:
    """The config.json of a tiny model; `kind` is one of `KINDS`, `text` the decoder's family."""
    decoder = {"model_type": text, **TEXT}
    image_token = len(WORDS)
    if kind == "gemma3":
        return {**_gemma3(image_token), **changes}
    if kind in ("clip", "siglip"):
        content = {
            "model_type": "llava",
            "architectures": ["LlavaForConditionalGeneration"],
            "vision_config": {"model_type": f"{kind}_vision_model", **TOWER},
            "image_token_index": image_token,
            "vision_feature_layer": {"clip": -2, "siglip": -1}[kind],
            "vision_feature_select_strategy": {"clip": "default", "siglip": "full"}[kind],
        }
    else:
        name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[kind]
        content = {
            "model_type": kind,
            "architectures": [f"{name}ForConditionalGeneration"],
            "vision_config": {"model_type": f"{kind}_vision", **TOWER},
            "image_token_id": image_token,
            "scale_factor": 2,
        }
    return {**content, "text_config": decoder, "tie_word_embeddings": False, **changes}


def _gemma3(image_token: int) -> dict[str, Any]:
    """Images of four tokens; windows that are smaller."""
    text = {"model_type": "gemma3_text", "query_pre_attn_scalar": 5, "sliding_window": 3, "rms_norm_eps": 1e-6}
    text |= {"vocab_size": TEXT["vocab_size"] + len(AROUND)}
    text |= {"layer_types": ["sliding_attention", "full_attention"], "rope_local_base_freq": 100.0}
    return {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "vision_config": {"model_type": "siglip_vision_model", **TOWER},
        "text_config": {**TEXT, **text},
        "image_token_index": image_token,
        "boi_token_index": TEXT["vocab_size"],
        "eoi_token_index": TEXT["vocab_size"] + 1,
        "mm_tokens_per_image": 4,
    }


def image_config(kind: str, **changes: Any) -> dict[str, Any]:
    """The preprocessor_config.json of a tiny model."""
    square = {"height": SIDE, "width": SIDE}
    content: dict[str, Any] = {
        "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE}, "crop_size": square},
        "siglip": {"image_processor_type": "SiglipImageProcessor", "size": square},
        "idefics3": {"image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": LONGEST}},
        "gemma3": {"image_processor_type": "Gemma3ImageProcessor", "size": square, "do_pan_and_scan": None},
        "smolvlm": {"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": LONGEST}},
    }[kind]
    if kind in ("idefics3", "smolvlm"):
        content["max_image_size"] = {"longest_edge": SIDE}
    return {**content, **changes}


def word_level(words: list[str], specials: list[str], template: str, **tokens: Any) -> PreTrainedTokenizerFast:
    """A tokenizer that knows whole words only."""
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(words + specials)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        **{"additional_special_tokens": specials} if "extra_special_tokens" not in tokens else {},
        chat_template=template,
        clean_up_tokenization_spaces=False,
        **tokens,
    )


def tokenizer(kind: str = "clip") -> PreTrainedTokenizerFast:
    """A word-level tokenizer whose template writes one <image> per image, of Gemma 3 one <start_of_image>."""
    if kind != "gemma3":
        return word_level(WORDS, SPECIALS, TEMPLATE)
    template = TEMPLATE.replace("<image>", AROUND["boi_token"])
    named = {**AROUND, "image_token": "<image>"}
    return word_level(WORDS, [*SPECIALS, *AROUND.values()], template, extra_special_tokens=named)


def tensors(kind: str, **changes: Any) -> dict[str, np.ndarray]:
    """Random tensors of a checkpoint, none constant."""
    config = parse_config(hf_config(kind, **changes), "tiny")
    shapes, rng = leaf_shapes(build(config).abstract), np.random.default_rng(1)
    return {
        place.key: rng.normal(0.1, 0.2, tensor_shape(shapes[path], place)).astype(np.float32)
        for path, place in expand(FAMILIES[config.family].rows(config), shapes)
    }


def folder(
    path: Path, kind: str, *, weights: Any = None, images: Mapping[str, Any] | None = None, **changes: Any
) -> Path:
    """Writes a checkpoint folder; `changes` go into its config.json, `images` into its preprocessor_config.json."""
    path.mkdir(parents=True)
    weights = tensors(kind, **changes) if weights is None else weights
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    helpers(path, kind, images)
    (path / "config.json").write_text(json.dumps(hf_config(kind, **changes)))
    return path


def helpers(path: Path, kind: str, images: Mapping[str, Any] | None = None) -> None:
    """Adds tokenizer and image processor to a folder."""
    tokenizer(kind).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(image_config(kind, **(images or {}))))


def picture(path: Path, height: int, width: int, seed: int = 0) -> dict[str, Any]:
    """Writes a PNG of noise; gives a reference to it."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return {"type": "image", "path": str(path)}


def conversation(*images: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A question about images, and an answer."""
    question = [*images, {"type": "text", "text": "what is this and that ?"}]
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": "a red square"}]},
    ]


def encode(processor: Processor, messages: Any) -> np.ndarray:
    """Ids of a conversation."""
    text = processor.tokenizer.apply_chat_template(messages, tokenize=False)
    return np.array(processor.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)


def example(ids: np.ndarray, messages: Any) -> Example:
    """An example all of whose `ids` are inputs (its last token is only a target)."""
    images = tuple(part for message in messages for part in message["content"] if part["type"] == "image")
    return Example(np.append(ids, 0).astype(np.int32), np.ones(len(ids) + 1, bool), images)


def batch(processor: Processor, conversations: Sequence[Any], width: int, image_tokens: int) -> Rows:
    """One whole conversation to a row."""
    rows = []
    for messages in conversations:
        ids, fields = encode(processor, messages), np.zeros((3, width), np.int32)
        fields[:, : len(ids)] = ids, np.arange(len(ids)), np.ones(len(ids))
        images = processor.images.row([PackedExample(0, example(ids, messages))], width, image_tokens)
        rows.append(Rows(*fields, images))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def packed(processor: Processor, conversations: Sequence[Any], width: int, room: int) -> Rows:
    """Whole conversations, one after the other in one row."""
    fields, start, placed = np.zeros((3, 1, width), np.int32), 0, []
    for number, messages in enumerate(conversations, start=1):
        ids = encode(processor, messages)
        fields[:, 0, start : start + len(ids)] = ids, np.arange(len(ids)), np.full(len(ids), number)
        placed.append(PackedExample(start, example(ids, messages)))
        start += len(ids)
    images = processor.images.row(placed, width, room)
    return Rows(*fields, jax.tree.map(lambda leaf: leaf[None], images))


def features(model: Model, params: Any, images: Any) -> np.ndarray:
    """Token vectors of the images of a batch."""
    module = VisionLanguage(model.config)
    return np.asarray(jax.jit(lambda p, i: module.apply({"params": p}, i, method="features"))(params, images))


def vectors(model: Model, params: Any, rows: Rows) -> np.ndarray:
    """Input vectors of the decoder."""
    module = VisionLanguage(model.config)
    return np.asarray(module.apply({"params": params}, rows.tokens, rows.images, method="vectors")[0])
