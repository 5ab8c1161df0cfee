"""Tokenizers of GGUF files against those of the Hugging Face folders that the files were made from."""

import itertools
import json
import unicodedata

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from merit_jax.models.processing.gguf_tokenizer import from_gguf

TEXTS = (
    "Hello, it's 1234567 o'clock; WE'LL SEE.",
    "  two  spaces\n\n\ttab, trailing \r\n \n",
    "naïve café — 日本語 한국어 🙂🏳️\u200d🌈 \u202e \u0301x \ufb01ne",
    unicodedata.normalize("NFD", "naïve café Ångström 한국어 ệ"),
    "\u1100\u1161\u11a8 \u212b \u2126 \u0958 \u0f43",
    "def f(x):\n    return x**2  # ok\n\tfor i in range(10): print(i, end=' ')",
    "x=3.14159e-10; y = 1_000_000; 0xDEADBEEF, 12/31/1999",
    "<|begin|>user\nhi<|end|>\n<think>so</think> a<|end|>b",
    "",
    " ",
    "a" * 300 + "1" * 31 + "\n" * 7,
    "unreachable whole, unreachable",
    "\0\x7f\u0080\u2028\ufeff",
)
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def isolated(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "isolated", invert=False)
    return pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)]
    )


def parts(kind):
    """Pre-tokenizer, normalizer and `ignore_merges` of the published tokenizer.json of a kind."""
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]), None, False
    if kind == "qwen2":
        return isolated(_LLAMA3.replace("{1,3}", "")), normalizers.NFC(), False
    return isolated(_LLAMA3), None, True


@pytest.fixture(scope="module", params=["smollm", "llama-bpe", "qwen2"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    """A folder of its kind, with a token that no merges lead to, as Llama 3 has them."""
    split, normalizer, whole = parts(kind)
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = split
    trainer = BpeTrainer(vocab_size=420, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = [unicodedata.normalize("NFC", text) for text in TEXTS if "unreachable" not in text]
    trained.train_from_iterator(texts * 2, trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = model["vocab"] | {"Ġwhole": len(model["vocab"]), "unreachable": len(model["vocab"]) + 1}
    made = Tokenizer(BPE(vocabulary, [tuple(pair) for pair in model["merges"]], ignore_merges=whole))
    made.pre_tokenizer, made.decoder = split, decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    made.add_special_tokens([AddedToken(token, normalized=False) for token in ("<|begin|>", "<|end|>")])
    made.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    if kind == "llama-bpe":
        template = processors.TemplateProcessing(
            single="<|begin|> $A",
            pair="<|begin|> $A <|begin|>:1 $B:1",
            special_tokens=[("<|begin|>", made.token_to_id("<|begin|>"))],
        )
        made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    else:
        made.post_processor = processors.ByteLevel(trim_offsets=False)
    path = tmp_path_factory.mktemp(kind)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|end|>", bos_token="<|begin|>", pad_token="<|end|>"
    )
    fast.chat_template = "{{ messages[0].content }}"
    fast.save_pretrained(path)
    return path


def converted(tokenizer, kind, **more):
    """Metadata as llama.cpp's converter writes them: text, type and merges of every id, and fillers behind."""
    vocabulary = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens = [vocabulary.get(number, f"[PAD{number}]") for number in range(len(vocabulary) + 5)]
    types = [
        5 if number not in vocabulary else 1 if number not in added else 3 if added[number].special else 4
        for number in range(len(tokens))
    ]
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return {
        "general.architecture": "qwen2" if kind == "qwen2" else "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": kind,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.chat_template": tokenizer.chat_template,
        **more,
    }


def ids(tokenizer):
    """Ids of all texts, alone, without special tokens, and in pairs; and where each token stands in the text."""
    alone = [tokenizer(text, return_offsets_mapping=True) for text in TEXTS]
    plain = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    pairs = [tokenizer(one, two)["input_ids"] for one, two in itertools.pairwise(TEXTS)]
    return [(found["input_ids"], found["offset_mapping"]) for found in alone], plain, pairs


def test_ids_vocabulary_and_special_tokens_equal_those_of_the_folder(folder, kind):
    original = AutoTokenizer.from_pretrained(folder)
    rebuilt = from_gguf(converted(original, kind), "x.gguf")
    assert ids(rebuilt) == ids(original)
    assert rebuilt.get_vocab() == original.get_vocab()
    assert rebuilt.special_tokens_map == original.special_tokens_map
    assert rebuilt.chat_template == original.chat_template
    for text in TEXTS:
        found = rebuilt(text)["input_ids"]
        assert rebuilt.decode(found) == original.decode(found)


def test_what_is_exported_is_the_original_tokenizer(folder, kind, tmp_path):
    original = AutoTokenizer.from_pretrained(folder)
    from_gguf(converted(original, kind), "x.gguf").save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert ids(again) == ids(original)
    assert again.get_vocab() == original.get_vocab()


def test_the_keys_decide_what_a_text_starts_and_ends_with(folder, kind):
    original = AutoTokenizer.from_pretrained(folder)
    bos, eos = original.bos_token_id, original.eos_token_id
    for first in (False, True):
        for last in (False, True):
            keys = {"tokenizer.ggml.add_bos_token": first, "tokenizer.ggml.add_eos_token": last}
            found = from_gguf(converted(original, kind, **keys), "x.gguf")("ab")["input_ids"]
            plain = original("ab", add_special_tokens=False)["input_ids"]
            assert found == [*([bos] if first else []), *plain, *([eos] if last else [])]


def test_named_templates_are_kept_and_a_token_of_two_ids_is_refused(folder, kind):
    metadata = converted(AutoTokenizer.from_pretrained(folder), kind)
    named = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": "tools"}
    assert from_gguf(metadata | named, "x.gguf").chat_template == {
        "default": metadata["tokenizer.chat_template"],
        "tool_use": "tools",
    }
    tokens = metadata["tokenizer.ggml.tokens"]
    with pytest.raises(
        ValueError, match=r"x\.gguf: the tokenizer is damaged \(ValueError: ids 0 and 1 have the same token"
    ):
        from_gguf(metadata | {"tokenizer.ggml.tokens": [tokens[0], tokens[0], *tokens[2:]]}, "x.gguf")
