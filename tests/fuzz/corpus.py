"""Small valid files of every kind that is read, made by the tests' own writers."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from tests.support.tiny_tokenizer import CHATML, CHATML_GENERATION
from tests.support.tiny_vision import TEMPLATE

FLAN = [{"inputs": "a 1", "targets": "b"}, {"inputs": "x?", "targets": "yes", "options": ["no", "yes"], "facts": ["f"]}]
ALPACA = [{"instruction": "do", "input": "it", "output": "done", "system": "be", "history": [["a", "b"]]}]
SHAREGPT = [
    {"conversations": [{"from": "human", "value": "hi <image>"}, {"from": "gpt", "value": "ho"}], "images": ["a.png"]},
    {
        "tools": '[{"name": "f", "parameters": {"type": "object"}}]',
        "options": ["a", "b"],
        "conversations": [
            {"from": "human", "value": "u", "weight": None},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}', "loss": False},
            {"from": "observation", "value": "1"},
            {"from": "gpt", "value": "a", "train": True},
        ],
    },
]
LLAVA = [
    {
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "noise"}],
    }
]
CAULDRON = [{"images": ["a.png", {"path": "b.jpeg"}], "texts": [{"user": "u", "assistant": "a"}]}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
"""A PNG of one pixel, in base64."""
OPENAI = [
    {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a"},
        ]
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image", "image": "a.png"},
                    {"type": "image", "image": PIXEL},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                ],
            },
            {"role": "assistant", "content": "seen"},
        ]
    },
    {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": "u"},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "r",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
                "weight": 0,
            },
            {"role": "tool", "name": "f", "tool_call_id": "1", "content": "1"},
            {"role": "assistant", "content": "a", "loss_mask": 1},
        ],
    },
]
ROWS = {"flan": FLAN, "alpaca": ALPACA, "sharegpt": SHAREGPT, "llava": LLAVA, "cauldron": CAULDRON, "openai": OPENAI}

CONTAINERS: dict[str, bytes] = {
    "object": json.dumps({"version": 1, "data": FLAN}, indent=1).encode(),
    "columns": json.dumps({"inputs": {"0": "a", "1": "b"}, "targets": {"0": "c", "1": "d"}}).encode(),
    "lists": json.dumps([SHAREGPT[0]["conversations"]]).encode(),
    "pretty": json.dumps(FLAN, indent=1).encode(),
    "record over lines": json.dumps(FLAN[0], indent=1).encode(),
    "turns": json.dumps(SHAREGPT[0]["conversations"]).encode(),
    "commas": b",\n".join(json.dumps(row).encode() for row in FLAN),
    "carriage returns": b"\r".join(json.dumps(row).encode() for row in FLAN),
    "UTF-16": json.dumps(FLAN).encode("utf-16"),
    "NaN in a list": b'[{"inputs": "a", "targets": "b", "score": NaN}, {"inputs": "a", "targets": "b"}]',
}
"""Files that hold records in another way than one a line."""
NAMES = (
    "train-00000-of-00002.parquet\ntrain-00001-of-00002-0a1b.parquet\ntest-00000-of-00001.parquet",
    "birds_train.jsonl\nbirds_valid.jsonl\nbirds.val.jsonl\nbirds_test.jsonl\na.jsonl",
    "dev.train.jsonl\ncontest.jsonl\na[1].jsonl\nDev_x.json\nx.json",
)
"""Names of the files of a folder, one a line."""
SHARDS = ("s-00000-of-00002.jsonl", "s-00001-of-00002.jsonl")

MANIFEST: dict[str, dict[str, Any]] = {
    "one": {"file_name": "flan.jsonl", "held_out": 0.5},
    "two": {
        "file_name": "alpaca.jsonl",
        "formatting": "alpaca",
        "columns": {"prompt": "instruction"},
        "num_samples": 1,
    },
    "three": {"file_name": "llava.jsonl", "image_root": ".", "tags": {"role_tag": "from"}, "split": "train"},
    "many": {"file_name": "groups.jsonl", "group_by": "task", "eval_file_name": "groups.jsonl"},
    "four": {"file_name": ["shards", "flan.jsonl"], "eval_file_name": "shards/*.val.jsonl"},
}
YAML = """
base: &base {columns: {prompt: instruction}, tags: {role_tag: from}}
one: {file_name: flan.jsonl, held_out: 0.5}
two:
  file_name: alpaca.jsonl
  <<: *base
  formatting: alpaca
many: {file_name: groups.jsonl, group_by: "task"}
"""
YAML = YAML.replace("base: &base {", "base: &base {file_name: flan.jsonl, ").replace("  file_name: alpaca.jsonl\n", "")

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 16,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 12,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
TEMPLATES = (CHATML, CHATML_GENERATION, TEMPLATE)
ATTACKS = (
    "{% for i in range(10**12) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{{ 'a' * 10000000000 }}",
    "{{ (messages[0].content ~ 'a') * 9999999999 }}",
    "{% set n = namespace(s='aaaa') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ ''['__cla' ~ 'ss__'] }}",
    "{{ messages.append(1) }}",
    "{{ self._TemplateReference__context }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends '../secret' %}",
    "{{ 1 / 0 }}",
    "{{ messages[99].content }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ namespace(__class__=1) }}",
    "{{ raise_exception('no') }}",
    "{{ strftime_now('%Y' * 1000) }}",
    "{{ 'x' | attr('__class__') }}",
    "{{ '{0.__class__}'.format('x') }}",
    "{{ 'x'.format_map({}) }}",
    "{{ 'x' | center(999999) }}",
    "{{ messages | tojson(indent=100000) }}",
    "{% set n = messages | length * 2700 %}{{ ('a' * 900000) * n }}",
    "{% set s = 'a' | center(900000) %}{{ s | replace(' ', s) | length }}",
    "{% set n = 99999 * (messages | length * 27000) %}{{ 'a' | center(n) }}",
    "{{ range(99999) | join(messages[0].content * 99999) }}",
    "{{ [1, 2] | random }}",
    "{{ messages[0].content ~ '<|im_end|>' * 9 }}",
)
"""Chat templates that are no accident."""


def tensors() -> dict[str, np.ndarray]:
    """Those of `LLAMA`."""
    rng = np.random.default_rng(0)
    h, k, m, v = 8, 4, 12, 16
    layer = {
        "input_layernorm": (h,),
        "self_attn.q_proj": (h, h),
        "self_attn.k_proj": (k, h),
        "self_attn.v_proj": (k, h),
        "self_attn.o_proj": (h, h),
        "post_attention_layernorm": (h,),
        "mlp.gate_proj": (m, h),
        "mlp.up_proj": (m, h),
        "mlp.down_proj": (h, m),
    }
    shapes = {f"model.layers.{n}.{name}.weight": shape for n in range(2) for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": (v, h), "model.norm.weight": (h,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def lines(rows: list[Any]) -> bytes:
    """JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def image(kind: str, **options: Any) -> bytes:
    """A picture of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    return _saved(Image.fromarray(noise), kind, **options)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def images() -> list[bytes]:
    """Pictures of the usual kinds, some with metadata."""
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [image(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "ICO")]
    grey = np.random.default_rng(0).integers(0, 2**16, (12, 20), dtype=np.uint16)
    greys = [_saved(Image.fromarray(grey), kind) for kind in ("PNG", "TIFF", "PPM")]
    frames = [Image.new("RGB", (20, 12), colour) for colour in ("red", "blue")]
    moving = [_saved(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("GIF", "PNG", "TIFF")]
    turned = [image("JPEG", exif=exif), image("PNG", exif=exif), image("TIFF", compression="tiff_lzw")]
    return [*kinds, *turned, *greys, *moving]


def parquet() -> bytes:
    """A parquet file with every kind of column."""
    import pyarrow
    import pyarrow.parquet

    rows = [{**LLAVA[0], "n": 1, "image": {"bytes": image("PNG"), "path": "a.png"}} for _ in range(5)]
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out, row_group_size=2)
    return out.getvalue()


def gguf_file(path: Path) -> bytes:
    """A GGUF file of `LLAMA` with a tokenizer."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    sizes = {"block_count": 2, "context_length": 64, "embedding_length": 8, "feed_forward_length": 12}
    heads = {"attention.head_count": 2, "attention.head_count_kv": 1, "rope.dimension_count": 4}
    for key, value in {**sizes, **heads}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([*"abcdefghijklmn", "ab", "<|end|>"])
    writer.add_token_merges(["a b"])
    writer.add_token_types([1] * 15 + [3])
    writer.add_eos_token_id(15)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for key, tensor in tensors().items():
        writer.add_tensor(names.get_name(key, try_suffixes=(".weight",)), tensor)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    return path.read_bytes()


def safetensors(part: slice = slice(None)) -> bytes:
    """Some of the tensors as a safetensors file."""
    return save(dict(list(tensors().items())[part]), metadata={"format": "pt"})


def data_folder(root: Path) -> None:
    """What the rows and manifests name: files inside, a secret outside, links to it, a pipe."""
    inside, outside = root / "inside", root / "outside"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
    (outside / "secret.jsonl").write_bytes(lines(FLAN))
    (outside / "secret.png").write_bytes(image("PNG"))
    for name, rows in ROWS.items():
        (inside / f"{name}.jsonl").write_bytes(lines(rows))
    (inside / "groups.jsonl").write_bytes(lines([{**FLAN[0], "task": task} for task in ("x", "y", "y")]))
    (inside / "shards").mkdir()
    for name in (*SHARDS, "s.val.jsonl", "s.test.jsonl"):
        (inside / "shards" / name).write_bytes(lines(FLAN))
    (inside / "a.png").write_bytes(image("PNG"))
    (inside / "b.jpeg").write_bytes(image("JPEG"))
    (inside / "link.png").symlink_to(outside / "secret.png")
    (inside / "link").symlink_to(outside)
    os.mkfifo(inside / "pipe")
