"""A processor expands each image's placeholder into as many tokens as transformers counts, or says what does not fit."""

import json
import pickle

import numpy as np
import pytest

from merit_jax.data.chat_template import encode, encode_prompt, tokenizer_digest
from merit_jax.models.pretrained.processor import ImageTokenizer, load_processor
from merit_jax.models.processing.content_shape import ROLES, roles_of_strings
from tests.support import tiny_vision
from tests.support.tiny_tokenizer import CHATML, tiny_tokenizer

TEXT = {"type": "text", "text": "What is this?"}


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return load_processor(tiny_vision.folder(tmp_path_factory.mktemp("model")))


def reference(path):
    return {"type": "image", "path": str(path)}


def conversation(*parts):
    return ({"role": "user", "content": list(parts)}, {"role": "assistant", "content": "noise"})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_an_image_gets_as_many_tokens_as_transformers_gives_it(tmp_path, processor, mode):
    from transformers import AutoImageProcessor
    from transformers.image_utils import load_image

    paths = [tiny_vision.picture(tmp_path / f"{n}.png", *size, mode) for n, size in enumerate([(17, 43), (90, 60)])]
    tiny_vision.folder(tmp_path / "model")
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "model", backend="pil")
    grids = theirs([load_image(str(path)) for path in paths], return_tensors="np")["image_grid_thw"]
    ids = encode_prompt(processor.tokenizer, conversation(*map(reference, paths), TEXT)[:-1])
    assert processor.images.count(ids) == (grids.prod(axis=1) // 4).sum()
    runs = "".join("i" if processor.images.count(ids[n : n + 1]) else "t" for n in range(len(ids))).split("t")
    assert [len(run) for run in runs if run] == (grids.prod(axis=1) // 4).tolist()


def test_a_text_is_the_same_as_a_part_and_as_a_string(processor):
    parts, string = conversation(TEXT), ({"role": "user", "content": TEXT["text"]}, conversation()[1])
    one, other = (encode(processor.tokenizer, messages, 100)[0] for messages in (parts, string))
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert processor.images.count(one.tokens) == 0
    assert one.images == ()


def test_the_response_alone_is_supervised_and_the_images_travel(tmp_path, processor):
    image = reference(tiny_vision.picture(tmp_path / "a.png", 16, 24))
    example, cut = encode(processor.tokenizer, conversation(image, TEXT), 100)
    assert processor.tokenizer.decode(example.tokens[example.supervised]) == "noise<|im_end|>"
    assert (example.images, cut, processor.images.count(example.tokens)) == ((image,), False, 6)


def test_a_copy_in_another_process_is_as_good(tmp_path, processor):
    image = reference(tiny_vision.picture(tmp_path / "a.png", 16, 24))
    copy = pickle.loads(pickle.dumps(processor.tokenizer))
    assert isinstance(copy, ImageTokenizer)
    np.testing.assert_array_equal(
        *(encode(tokenizer, conversation(image, TEXT), 100)[0].tokens for tokenizer in (copy, processor.tokenizer))
    )
    assert (len(copy), copy.eos_token) == (len(processor.tokenizer.tokenizer), "<|im_end|>")


def test_image_settings_are_part_of_the_digest(tmp_path, processor):
    model = tiny_vision.folder(tmp_path / "model")
    assert tokenizer_digest(load_processor(model).tokenizer) == tokenizer_digest(processor.tokenizer)
    settings = json.loads((model / "preprocessor_config.json").read_text())
    settings["size"]["longest_edge"] //= 2
    (model / "preprocessor_config.json").write_text(json.dumps(settings))
    assert tokenizer_digest(load_processor(model).tokenizer) != tokenizer_digest(processor.tokenizer)


@pytest.mark.parametrize("config", [None, {"model_type": "llama"}, {"model_type": "unheard of"}])
def test_a_text_model_has_a_tokenizer_and_no_reader(tmp_path, config):
    tiny_tokenizer().save_pretrained(tmp_path)
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer, images = load_processor(tmp_path)
    assert images is None
    assert not isinstance(tokenizer, ImageTokenizer)


def test_an_unknown_kind_of_vision_is_refused(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other_vl", "vision_config": {}}))
    with pytest.raises(
        ValueError, match=r"config.json: model_type = 'other_vl' is not supported; known families: llama"
    ):
        load_processor(tmp_path)


def test_a_tokenizer_without_the_image_token_is_refused(tmp_path):
    model = tiny_vision.folder(tmp_path, tiny_vision.tokenizer(special=("<|vision_start|>", "<|vision_end|>")))
    with pytest.raises(
        ValueError, match=r"the tokenizer has no image token: id .*, is '<.image_pad.>' and no special token"
    ):
        load_processor(model)


def test_an_image_token_of_another_id_is_refused(tmp_path):
    model = tiny_vision.folder(tmp_path, image_token_id=7)
    with pytest.raises(ValueError, match=r"reads the image token '<.image_pad.>' as ids \[\d+\], config.json says 7"):
        load_processor(model)


def test_a_text_that_contains_the_placeholder_is_refused(tmp_path, processor):
    image = reference(tiny_vision.picture(tmp_path / "a.png", 16, 24))
    told = {"type": "text", "text": "Say <|image_pad|>."}
    with pytest.raises(ValueError, match=r"f:1: the text 'Say <.image_pad.>.' contains '<.image_pad.>', which stands"):
        encode(processor.tokenizer, conversation(image, told), 100, where="f:1")
    with pytest.raises(ValueError, match=r"f:1: the text .* contains"):
        encode(processor.tokenizer, conversation(told), 100, where="f:1")


BAD_TEMPLATES = {
    tiny_vision.TEMPLATE.replace("".join(tiny_vision.VISION), ""): (
        "f:1: the chat template writes '<.image_pad.>' 0 times for 1 images; set a template that writes it once"
    ),
    tiny_vision.TEMPLATE.replace("<|image_pad|>", "<|image_pad|><|image_pad|>"): "'<.image_pad.>' 2 times for 1 images",
    CHATML: "f:1: .*; the template must take content that is a list of parts",
}


@pytest.mark.parametrize("template", BAD_TEMPLATES)
def test_a_template_that_does_not_write_images_is_refused(tmp_path, template):
    model = tiny_vision.folder(tmp_path / "model", tiny_vision.tokenizer(template))
    image = reference(tiny_vision.picture(tmp_path / "a.png", 16, 24))
    with pytest.raises(ValueError, match=BAD_TEMPLATES[template]):
        encode(load_processor(model).tokenizer, conversation(image, TEXT), 100, where="f:1")


def parts_of(template):
    """The template for parts: each message's text from a list, its images left out."""
    return template.replace("message['content']", "(message['content'] | map(attribute='text') | join)")


SHAPES = {
    "text model's": (CHATML, {"system", "developer", "user", "assistant", "tool"}),
    "text model's that writes anything": (
        CHATML.replace("message['content']", "(message['content'] | trim)"),
        set(ROLES),
    ),
    "of parts": (parts_of(CHATML), set()),
    "of parts, but a string for the system": (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
        "{% if message.role == 'system' %}{{ message.content | trim }}"
        "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        {"system"},
    ),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_text_is_given_in_the_shape_that_the_template_takes(tmp_path, kind):
    template, strings = SHAPES[kind]
    tokenizer = load_processor(tiny_vision.folder(tmp_path, tiny_vision.tokenizer(template))).tokenizer
    assert roles_of_strings(tokenizer.tokenizer, template) == strings
    messages = ({"role": "system", "content": "Sys."}, *conversation(TEXT))
    example, _ = encode(tokenizer, messages, 200)
    assert tokenizer.decode(example.tokens) == (
        "<|im_start|>system\nSys.<|im_end|>\n<|im_start|>user\nWhat is this?<|im_end|>\n<|im_start|>assistant\nnoise<|im_end|>"
    )


def test_a_list_as_python_shows_it_is_refused(tmp_path):
    template = CHATML.replace("message['content']", "(message['content'] | string)")
    model = tiny_vision.folder(tmp_path / "model", tiny_vision.tokenizer(template))
    image, tokenizer = reference(tiny_vision.picture(tmp_path / "a.png", 16, 24)), load_processor(model).tokenizer
    with pytest.raises(ValueError, match=r"f:1: the chat template writes '<.image_pad.>' 0 times for 1 images"):
        encode(tokenizer, conversation(image, TEXT), 100, where="f:1")
    with pytest.raises(ValueError, match=r"f:1: the chat template writes a message's list .*\[\{'type': 'text'.*parts"):
        encode(tiny_vision.tokenizer(template), conversation(TEXT), 100, where="f:1")


def test_a_question_about_such_a_list_is_none(processor):
    asked = conversation({"type": "text", "text": "Explain [{'type': 'text', 'text': 'a'}], please."})
    example, _ = encode(processor.tokenizer, asked, 100)
    assert "[{'type': 'text', 'text': 'a'}]" in processor.tokenizer.decode(example.tokens)


def test_a_missing_image_is_named_where_the_text_is_made(tmp_path, processor):
    with pytest.raises(ValueError, match=f"f:1: {tmp_path}/gone.png: no such image; correct the path"):
        encode(processor.tokenizer, conversation(reference(tmp_path / "gone.png")), 100, where="f:1")
