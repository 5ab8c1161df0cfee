"""Tokens by id, from every kind of tokenizer file, and which differences are refused."""

import json

import pytest

from merit_jax.models.processing.vocabulary import check_vocabularies, read_vocabulary, rule_notes, same_tokenizer

TOKENS = {0: "<unk>", 1: "\u2581the", 2: "b"}
ADDED = {**TOKENS, 3: "<|im_end|>"}


def folder(path, files):
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def by_token(tokens):
    return {token: number for number, token in tokens.items()}


def whole(tokens=TOKENS, added=()):
    """A tokenizer.json."""
    listed = [{"id": n, "content": token} for n, token in added]
    return {"tokenizer.json": {"model": {"vocab": by_token(tokens)}, "added_tokens": listed}}


def sentencepiece(tokens=TOKENS):
    model = pytest.importorskip("transformers.utils.sentencepiece_model_pb2_new").ModelProto()
    for token in tokens.values():
        model.pieces.add().piece = token
    return {"tokenizer.model": model.SerializeToString()}


DECODER = {"tokenizer_config.json": {"added_tokens_decoder": {"3": {"content": "<|im_end|>", "special": True}}}}
KINDS = {
    "tokenizer.json": whole(added=[(3, "<|im_end|>")]),
    "unigram": {"tokenizer.json": {"model": {"vocab": [[token, 0.0] for token in ADDED.values()]}}},
    "tokenizer.model": {**sentencepiece(), **DECODER},
    "vocab.json": {"vocab.json": by_token(TOKENS), "merges.txt": b"", "added_tokens.json": {"<|im_end|>": 3}},
    "vocab.txt": {"vocab.txt": "\n".join(ADDED.values()).encode()},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_tokens(tmp_path, kind):
    path = folder(tmp_path / "a", KINDS[kind])
    assert read_vocabulary(path) == ADDED
    assert check_vocabularies(path, folder(tmp_path / "b", whole(ADDED))) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_that_is_another_token_is_named(tmp_path, kind):
    path = folder(tmp_path / "a", KINDS[kind])
    other = folder(tmp_path / "b", whole({**ADDED, 1: "c"}))
    with pytest.raises(ValueError, match=r"of .*b is not that of .*a: id 1 is 'c' there and '\u2581the' here"):
        check_vocabularies(path, other)


def test_a_token_in_a_row_that_is_padding_in_the_base_is_refused(tmp_path):
    base, chat = folder(tmp_path / "base", whole()), folder(tmp_path / "chat", whole(added=[(3, "<|im_end|>")]))
    with pytest.raises(
        ValueError, match=r"id 3 is '<\|im_end\|>' there and no token here; .* put the tokenizer's files"
    ):
        check_vocabularies(base, chat, rows=8)
    assert check_vocabularies(base, chat, rows=3) == [], "the token has no row"
    (note,) = check_vocabularies(chat, base, rows=8)
    assert "the tokenizer of" in note
    assert "lacks id 3, '<|im_end|>'" in note


def test_a_folder_without_a_known_tokenizer_is_told(tmp_path):
    base, other = folder(tmp_path / "base", whole()), folder(tmp_path / "other", {"qwen.tiktoken": b""})
    (note,) = check_vocabularies(base, other)
    assert note.startswith(f"{other}: no tokenizer that can be read")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": "0"}}}'),
        ("vocab.json", b"[]"),
        ("tokenizer.model", b"\xff\xff\xff"),
        ("vocab.txt", b"\xff"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    with pytest.raises(ValueError, match=rf"{name}: expected a tokenizer with a vocabulary"):
        read_vocabulary(folder(tmp_path / "a", {name: content}))


def test_other_rules_for_the_same_tokens_are_told(tmp_path):
    for name, merges, lower in (
        ("base", ["a b", "c d"], None),
        ("same", [["a", "b"], ["c", "d"]], None),
        ("odd", [], {"type": "Lowercase"}),
    ):
        (tmp_path / name).mkdir()
        model = {"type": "BPE", "vocab": {"a": 0}, "merges": merges}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps({"model": model, "normalizer": lower}))
    assert rule_notes(tmp_path / "base", tmp_path / "same") == []
    (note,) = rule_notes(tmp_path / "base", tmp_path / "odd")
    assert "other normalizer, merges than in" in note


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_are_the_same_if_all_their_files_are_to_the_byte(tmp_path, kind):
    base, same = (folder(tmp_path / name, KINDS[kind]) for name in ("base", "same"))
    assert same_tokenizer(base, same)
    more = folder(tmp_path / "more", {**KINDS[kind], "added_tokens.json": {"<|im_end|>": 3, "x": 4}})
    assert not same_tokenizer(base, more)
    assert not same_tokenizer(more, base)
    (file,) = (file for file in same.iterdir() if file.name == next(iter(KINDS[kind])))
    file.write_bytes(file.read_bytes()[:-1] + b" ")  # as long, and as old to the second
    assert not same_tokenizer(base, same)


def test_folders_without_a_tokenizer_do_not_have_the_same(tmp_path):
    assert not same_tokenizer(folder(tmp_path / "a", {}), folder(tmp_path / "b", {"qwen.tiktoken": b""}))
