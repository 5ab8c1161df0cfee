"""GGUF files: the same params as the Hugging Face folder they were made from, and clear refusals."""

import json
import tracemalloc

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import tests.support.tiny as tiny
from merit_jax.models import (
    Llama3Scaling,
    export_hf,
    load_pretrained,
    open_pretrained,
    read_config,
    remove_heads,
    smollm2_path,
)
from merit_jax.models.io.gguf import hf_name, unpermute
from merit_jax.models.io.gguf_reader import open_reader
from merit_jax.models.pretrained import export
from merit_jax.models.rope_settings import LinearScaling
from tests.support.tiny_tokenizer import tiny_tokenizer

gguf = pytest.importorskip("gguf")


def interleave(rows, heads):
    """The converter's permutation of llama.cpp: half-rotation order to interleaved pairs."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(path, family="llama", *, tied=False, architecture=None, theta=5000.0, drop=(), keys=(), tensors=()):
    """A GGUF file of `tiny.tensors(family)`, with metadata keys left out or added and tensors added."""
    arch = architecture or family
    writer = gguf.GGUFWriter(path, arch)
    numbers = {
        "block_count": 3,
        "context_length": 64,
        "embedding_length": 24,
        "feed_forward_length": 40,
        "attention.head_count": 6,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 4,
    }
    for key, value in {**numbers, **dict(keys)}.items():
        if key not in drop:
            add = {str: writer.add_string, float: writer.add_float32, bool: writer.add_bool}
            add.get(type(value), writer.add_uint32)(f"{arch}.{key}", value)
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_float32(f"{arch}.rope.freq_base", theta)
    for name, tensor in {**gguf_tensors(family, tied), **dict(tensors)}.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_tensors(family, tied):
    """The tensors by GGUF name, queries and keys permuted for Llama."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA if family == "llama" else gguf.MODEL_ARCH.QWEN2, 3)
    found = {}
    for key, tensor in tiny.tensors(family, tied=tied).items():
        heads = 6 if ".q_proj." in key else 2 if ".k_proj." in key else None
        if heads and family == "llama":
            tensor = interleave(tensor, heads)
        found[names.get_name(key, try_suffixes=(".weight", ".bias")) or pytest.fail(key)] = tensor
    return found


@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("llama", True), ("qwen2", False)])
def test_params_and_config_equal_those_of_the_folder(tmp_path, family, tied):
    path = write(tmp_path / "model.gguf", family, tied=tied)
    model, params = load_pretrained(path)
    expected = load_pretrained(tiny.folder(tmp_path / "hf", family, tie_word_embeddings=tied))
    assert model.config == expected[0].config
    jax.tree.map(np.testing.assert_array_equal, params, expected[1])


def test_llama3_rope_divisors_become_its_scaling(tmp_path):
    wavelengths = 2 * np.pi * np.array([1, 5e8**0.5])
    assert wavelengths[0] < 8192 / 4 < 8192 < wavelengths[1]
    divisors = {"rope_freqs.weight": np.array([1, 32], np.float32)}
    path = write(tmp_path / "a.gguf", theta=5e8, tensors=divisors)
    assert read_config(path).rope.scaling == Llama3Scaling(32.0, 1.0, 4.0, 8192)
    odd = {"rope_freqs.weight": np.array([2, 32], np.float32)}
    with pytest.raises(ValueError, match=r"b.gguf: rope_freqs.weight is not the RoPE scaling of Llama 3"):
        read_config(write(tmp_path / "b.gguf", theta=5e8, tensors=odd))


REFUSED = {
    "architecture": ({"architecture": "gpt2"}, "architecture 'gpt2' is not supported; known: llama, qwen2"),
    "experts": ({"keys": {"expert_count": 8}}, r"llama\.expert_count = 8"),
    "window": ({"keys": {"attention.sliding_window": 8}}, r"sliding_window = 8"),
    "rope": ({"keys": {"rope.scaling.type": "yarn"}}, r"rope\.scaling\.type = 'yarn'"),
    "causal": (
        {"keys": {"attention.causal": False}},
        r"llama\.attention\.causal = False is not supported; expected True",
    ),
    "attention factor": ({"keys": {"rope.scaling.attn_factor": 1.5}}, r"rope\.scaling\.attn_factor = 1\.5"),
    "rotated part": (
        {"keys": {"rope.dimension_count": 2}},
        r"llama\.rope\.dimension_count = 2 is not supported; expected 4, the size of a head",
    ),
    "key length": ({"keys": {"attention.key_length": 8}}, r"llama\.rope\.dimension_count = 4 .*expected 8"),
    "value length": ({"keys": {"attention.value_length": 8}}, r"attention\.value_length = 8 .*expected 4"),
    "scale": ({"keys": {"attention.scale": 0.5}}, r"llama\.attention\.scale = 0\.5 is not supported"),
    "tensor": (
        {"tensors": {"blk.0.attn_odd.weight": np.ones(1, np.float32)}},
        r"'blk\.0\.attn_odd\.weight' has no place",
    ),
    "layer": (
        {"tensors": {"blk.7.attn_norm.weight": np.ones(24, np.float32)}},
        r"layers\.7\.input_layernorm.* no place",
    ),
    "metadata": ({"drop": ["block_count"]}, r"metadata key llama\.block_count is missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_decoder_does_not_do_is_refused_by_name(tmp_path, case):
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as raised:
        load_pretrained(write(tmp_path / "model.gguf", **options))
    assert "model.gguf" in str(raised.value)


@pytest.mark.parametrize("kept", [0, 3, 20, 60, 400, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, kept):
    path = write(tmp_path / "model.gguf")
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    with pytest.raises(ValueError, match=r"model.gguf: not a readable GGUF file"):
        load_pretrained(path)


def test_an_array_longer_than_the_file_is_refused(tmp_path):
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    array = (1).to_bytes(8, "little") + b"x" + (9).to_bytes(4, "little") + (0).to_bytes(4, "little")
    (tmp_path / "model.gguf").write_bytes(head + array + (2**60).to_bytes(8, "little"))
    with pytest.raises(ValueError, match=r"model.gguf: not a readable GGUF file"):
        load_pretrained(tmp_path / "model.gguf")
    with pytest.raises(ValueError, match="no such file"):
        load_pretrained(tmp_path / "other.gguf")


IDLE = (
    {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
    {"rope.scaling.type": "linear"},
    {"rope.scaling.factor": 1.0, "rope.scale_linear": 8.0},
    {"attention.key_length": 4, "attention.value_length": 4, "attention.causal": True, "expert_count": 0},
)


@pytest.mark.parametrize("keys", IDLE)
def test_keys_that_change_nothing_are_read_as_llama_cpp_reads_them(tmp_path, keys):
    assert read_config(write(tmp_path / "a.gguf", keys=keys)) == read_config(write(tmp_path / "b.gguf"))


def test_a_part_of_a_split_model_is_refused_by_its_number(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m-00002-of-00003.gguf", "llama")
    writer.add_uint16("split.no", 1)
    writer.add_uint16("split.count", 3)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(
        ValueError, match=r"m-00002-of-00003\.gguf: part 2 of 3 of a split model.*llama-gguf-split --merge"
    ):
        read_config(tmp_path / "m-00002-of-00003.gguf")


def head(tensors, keys):
    return b"GGUF" + (3).to_bytes(4, "little") + tensors.to_bytes(8, "little") + keys.to_bytes(8, "little")


def test_memory_grows_with_the_size_of_a_file_and_not_with_its_items(tmp_path):
    size = 2**20
    for kind, content in ((0, bytes(size)), (7, bytes(size)), (8, bytes(size))):
        count = size // 8 if kind == 8 else size
        kinds = (9).to_bytes(4, "little") + kind.to_bytes(4, "little")
        entry = (1).to_bytes(8, "little") + b"x" + kinds + count.to_bytes(8, "little") + content
        (tmp_path / "model.gguf").write_bytes(head(0, 1) + entry)
        tracemalloc.start()
        _, metadata = open_reader(tmp_path / "model.gguf")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(metadata["x"]) == count
        assert peak < 20 * size, (kind, peak)


@pytest.mark.parametrize(("counts", "message"), [((2**17, 0), "131072 tensors"), ((0, 2**13), "8192 metadata keys")])
def test_counts_beyond_any_model_are_refused(tmp_path, counts, message):
    (tmp_path / "model.gguf").write_bytes(head(*counts) + bytes(2**20))
    with pytest.raises(ValueError, match=rf"not a readable GGUF file .*{message}, at most"):
        open_reader(tmp_path / "model.gguf")


def test_tensors_that_share_bytes_are_refused(tmp_path):
    info = [
        (5).to_bytes(8, "little") + name + (1).to_bytes(4, "little") + (8).to_bytes(8, "little")
        for name in (b"one.w", b"two.w")
    ]
    places = b"".join(part + bytes(4) + (16 * n).to_bytes(8, "little") for n, part in enumerate(info))
    (tmp_path / "model.gguf").write_bytes((head(2, 0) + places).ljust(128, b"\0") + bytes(64))
    with pytest.raises(ValueError, match=r"tensors 'one\.w' and 'two\.w' share bytes"):
        open_reader(tmp_path / "model.gguf")


@pytest.mark.smollm2
@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_smollm2_weights_and_logits_equal_those_of_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    path = smollm2_path()
    model, params = load_pretrained(path)
    leaves = {name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}
    peer = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    tokens = np.random.default_rng(0).integers(0, 49152, (2, 12)).astype(np.int32)
    expected = peer(input_ids=torch.from_numpy(tokens).long()).logits.detach().numpy()
    places = np.broadcast_to(np.arange(12, dtype=np.int32), (2, 12))
    batch = tiny.Rows(tokens, places, np.ones((2, 12), np.int32))
    np.testing.assert_allclose(tiny.logits(tiny.compiled(model), params, batch), expected, atol=1e-3)

    export_hf(tmp_path / "out", leaves.__getitem__, path)
    own = peer.state_dict()
    del own["lm_head.weight"]
    exported, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    found = exported.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in own.items())
    assert exported.config.rms_norm_eps == 1e-5
    assert json.loads((tmp_path / "out" / "config.json").read_text())["bos_token_id"] == 1


def test_heads_are_removed_from_a_file_as_from_the_folder_of_the_same_model(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "load_tokenizer", lambda path: tiny_tokenizer())
    kept = {"decoder": np.array([[1, 1, 0, 0, 1, 1], [0, 1, 1, 1, 0, 1], [1, 0, 1, 1, 1, 0]], bool)}
    loaded = []
    for path in (write(tmp_path / "model.gguf"), tiny.folder(tmp_path / "hf")):
        opened = open_pretrained(path)
        removal = remove_heads(opened, kept)
        export.export_hf(tmp_path / f"out_{path.stem}", removal.reader(opened.read), removal.base)
        loaded.append(load_pretrained(tmp_path / f"out_{path.stem}"))
    (model, params), (other, expected) = loaded
    assert (model.config.heads, model.config.kv_heads) == (4, 2)
    assert model.config == other.config
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_tensor_names_outside_the_tables_are_refused(tmp_path):
    for name in ("blk.x.attn_q.weight", "blk.1", "attn_q.weight", "blk.0.attn_q.weight.more"):
        with pytest.raises(ValueError, match="has no place"):
            hf_name(name, tmp_path)


WRONG = {
    "heads": ({"keys": {"attention.head_count": "x"}}, r"llama\.attention\.head_count = 'x'; expected a number"),
    "no heads": ({"keys": {"attention.head_count": 0}, "drop": ["rope.dimension_count"]}, "heads = 0"),
    "layers": ({"keys": {"block_count": 2**31 - 1}}, "layers = 2147483647; expected 16384 at most"),
    "one place": ({"tensors": {"blk.00.attn_norm.weight": np.ones(24, np.float32)}}, "has no place"),
}


@pytest.mark.parametrize("case", WRONG)
def test_metadata_that_lies_is_refused(tmp_path, case):
    options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        load_pretrained(write(tmp_path / "model.gguf", **options))


@pytest.mark.parametrize("heads", [0, 5])
def test_rows_that_are_no_pairs_of_heads_are_refused(heads):
    with pytest.raises(ValueError, match=rf"12 rows of a projection are no pairs of {heads} heads"):
        unpermute(np.ones((12, 4)), heads)


def test_lists_in_lists_without_end_are_refused(tmp_path):
    nested = b"".join((9).to_bytes(4, "little") + (1).to_bytes(8, "little") for _ in range(20_000))
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    content = head + (1).to_bytes(8, "little") + b"k" + (9).to_bytes(4, "little") + nested
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ValueError, match="not a readable GGUF file"):
        load_pretrained(tmp_path / "model.gguf")


def test_a_text_that_is_not_utf8_is_refused(tmp_path):
    path = write(tmp_path / "model.gguf", keys={"odd": "abcdefgh"})
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abc\xff\xfefgh"))
    with pytest.raises(ValueError, match=r"model\.gguf: not a readable GGUF file"):
        load_pretrained(path)


@pytest.mark.parametrize(
    "keys",
    [
        {"rope.scale_linear": 4.0},
        {"rope.scaling.factor": 4.0},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ],
)
def test_a_linear_scaling_is_read_from_old_and_new_keys(tmp_path, keys):
    assert read_config(write(tmp_path / "a.gguf", keys=keys)).rope.scaling == LinearScaling(4.0)
