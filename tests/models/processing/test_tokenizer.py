"""Tokenizers rebuilt from GGUF metadata, and folders of exported ones."""

import json
import subprocess
import sys

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from merit_jax.models import load_tokenizer, smollm2_path
from merit_jax.models.io.checkpoint import open_checkpoint
from merit_jax.models.processing.gguf_tokenizer import from_gguf
from tests.support.tiny_tokenizer import CHATML, tiny_tokenizer

TEXTS = (
    "Hello, it's 1234 o'clock.",
    "  two  spaces\n\n\ttab and trailing ",
    "naïve café — 日本語 🙂 ‮ é",
    "def f(x):\n    return x**2  # ok\r\n",
    "<|im_start|>user\nhi<|im_end|>\n<repo_name>x",
    "",
    "a" * 300 + "1" * 30,
)


def metadata(**changes):
    """A byte-level BPE vocabulary: the 256 bytes, one merge, one control token and one user-defined token."""
    alphabet = sorted(ByteLevel.alphabet())
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*alphabet, "12", "ab", "<|end|>", "<think>"],
        "tokenizer.ggml.token_type": [1] * 258 + [3, 4],
        "tokenizer.ggml.merges": ["1 2", "a b"],
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.padding_token_id": 258,
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}",
    }
    return {**fields, **changes}


def pieces(text, **changes):
    tokenizer = from_gguf(metadata(**changes), "x.gguf")
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_smollm_splits_digits_and_the_others_do_not_or_by_three():
    assert pieces("ab12") == ["ab", "1", "2"]
    assert pieces("ab12", **{"tokenizer.ggml.pre": "qwen2"}) == ["ab", "1", "2"]
    assert pieces("ab12", **{"tokenizer.ggml.pre": "llama-bpe"}) == ["ab", "12"]


def test_control_and_user_defined_tokens_stay_whole_and_only_control_is_special():
    tokenizer = from_gguf(metadata(), "x.gguf")
    ids = tokenizer("ab<|end|><think>")["input_ids"]
    assert ids == [257, 258, 259]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab<think>"
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id) == (258, 258, None)


def test_chat_template_is_kept():
    tokenizer = from_gguf(metadata(), "x.gguf")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab<|end|>"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "tokenizer 'llama' with pre-tokenizer 'smollm' is not supported"),
        ({"tokenizer.ggml.pre": "tekken"}, "pre-tokenizer 'tekken'.*smollm, llama-bpe, qwen2"),
    ],
)
def test_unknown_kinds_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        from_gguf(metadata(**changes), "x.gguf")


def test_missing_metadata_is_named():
    with pytest.raises(ValueError, match=r"x\.gguf: metadata key tokenizer\.ggml\.merges is missing"):
        from_gguf({key: value for key, value in metadata().items() if not key.endswith("merges")}, "x.gguf")


def test_a_saved_tokenizer_loads_again_and_a_folder_without_one_is_refused(tmp_path):
    tokenizer = from_gguf(metadata(), "x.gguf")
    tokenizer.save_pretrained(tmp_path / "hf")
    again = load_tokenizer(tmp_path / "hf")
    assert again("ab12<|end|>é")["input_ids"] == tokenizer("ab12<|end|>é")["input_ids"]
    assert again.chat_template == tokenizer.chat_template
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nothing"):
        with pytest.raises(ValueError, match=name):
            load_tokenizer(tmp_path / name)


@pytest.mark.smollm2
@pytest.mark.parity
def test_smollm2_ids_equal_those_of_transformers():
    pytest.importorskip("torch")
    from transformers import AutoTokenizer

    path = smollm2_path()
    own, peer = load_tokenizer(path), AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in TEXTS:
        assert own(text)["input_ids"] == peer(text)["input_ids"], text
        assert own.decode(own(text)["input_ids"]) == text
    assert own.special_tokens_map == peer.special_tokens_map
    assert own.chat_template == open_checkpoint(path).metadata["tokenizer.chat_template"] == peer.chat_template
    assert len(own) == 49152


@pytest.mark.smollm2
def test_smollm2_tokenizer_and_weights_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import models; path = models.smollm2_path()\n"
        "assert models.load_tokenizer(path)('Hi 12')['input_ids'] and models.read_config(path).layers == 30"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("name", ["chat_template.json", "processor_config.json"])
def test_a_template_in_a_file_of_the_processor_alone_is_read(tmp_path, name):
    tiny_tokenizer(None).save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).chat_template is None
    (tmp_path / name).write_text(json.dumps({"chat_template": CHATML}))
    assert load_tokenizer(tmp_path).chat_template == CHATML
    tiny_tokenizer("{{ 'own' }}").save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).chat_template == "{{ 'own' }}"


@pytest.mark.parametrize(
    ("content", "mistake"), [('{"chat_template": [1]}', r"chat_template = \[1\]: expected a text"), ("{", "JSON")]
)
def test_a_damaged_file_of_a_template_is_named(tmp_path, content, mistake):
    tiny_tokenizer(None).save_pretrained(tmp_path)
    (tmp_path / "chat_template.json").write_text(content)
    with pytest.raises(ValueError, match=rf"chat_template.json.*{mistake}"):
        load_tokenizer(tmp_path)
