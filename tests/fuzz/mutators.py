"""Damage to bytes, texts and JSON values; the same seed makes the same damage."""

import json
import random
import re
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

NUMBERS = (0, -1, 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**30, -(10**30))
TEXTS = (
    "",
    "\0",
    "\ufeff",
    "\u202e\u0000",
    "🏳️\u200d🌈" * 3,
    "\udcff",
    "a" * 5000,
    "<image>",
    "{{ 7 * 7 }}",
    "%s%n",
    "<|im_end|>",
    "NaN",
    "\u2028",
    "OneFormerImageProcessor",
    "pipeline",
    "attacker/repo--module.Class",
)
PATHS = (
    "../outside/secret.jsonl",
    "../outside/secret.png",
    "../../../../../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "/dev/zero",
    "/proc/self/environ",
    "./../outside/secret.png",
    "a/../../outside/secret.png",
    "link.png",
    "link/secret.png",
    "~/.bashrc",
    "http://127.0.0.1:9/x.png",
    "\\\\host\\share",
    "gs://bucket/x",
    "x" * 5000,
    "..",
    ".",
    "pipe",
)
FIELDS = (
    "weight",
    "loss",
    "train",
    "reasoning_content",
    "thinking",
    "tool_calls",
    "function_call",
    "tools",
    "options",
    "facts",
    "system",
    "role",
    "from",
    "content",
    "name",
    "rejected",
    "kto_tag",
    "partial",
)
"""Names that change what is trained of a row or a turn."""
LITERALS = (b"NaN", b"-Infinity", b"1e999", b"null", b"true", b"1" * 5000, b"-0.0", b"[]", b"{}", b'"\\ud800"')

SETTINGS = (
    *("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"),
    *("is_causal", "layer_types", "sliding_window", "use_sliding_window", "max_window_layers", "per_layer_config"),
    *("num_labels", "id2label", "dtype", "torch_dtype", "auto_map", "attribute_map", "sub_configs", "to_dict"),
    *("num_hidden_layers", "depth", "head_dim", "image_size", "mrope_section", "fullatt_block_indexes", "text_config"),
)
"""Keys of a config.json that transformers gives a meaning, and names of its classes' own."""


def flip(data: bytes, rng: random.Random) -> bytes:
    """Turns over a few bits."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cuts off the end."""
    return data[: rng.randrange(len(data) + 1)]


def splice(data: bytes, rng: random.Random) -> bytes:
    """Moves, repeats or leaves out a piece."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    place = rng.randrange(len(data) + 1)
    piece = data[start:end]
    return rng.choice((data[:start] + data[end:], data[:place] + piece + data[place:], data[:place] + piece))


def lie(data: bytes, rng: random.Random) -> bytes:
    """Puts a huge number where a number stood: of digits, or of four or eight bytes."""
    runs = list(re.finditer(rb"\d+", data))
    if runs and rng.random() < 0.5:
        run = rng.choice(runs)
        return data[: run.start()] + str(rng.choice(NUMBERS)).encode() + data[run.end() :]
    size, number = rng.choice((1, 2, 4, 8)), rng.choice(NUMBERS)
    place = rng.randrange(max(1, len(data) - size + 1))
    return data[:place] + (number % 256**size).to_bytes(size, rng.choice(("little", "big"))) + data[place + size :]


def nest(data: bytes, rng: random.Random) -> bytes:
    """Opens many brackets, and closes them or not."""
    depth, place = rng.choice((50, 101, 900, 3000, 100_000)), rng.randrange(len(data) + 1)
    left, right = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"(", b")")))
    return data[:place] + left * depth + rng.choice((b"", b"1" + right * depth)) + data[place:]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Puts strange text, a path or a literal somewhere, or in the place of something quoted."""
    new = rng.choice((*(text.encode("utf-8", "surrogatepass") for text in (*TEXTS, *PATHS)), *LITERALS))
    quoted = list(re.finditer(rb'"[^"\n]*"', data))
    if quoted and rng.random() < 0.6:
        found = rng.choice(quoted)
        return data[: found.start() + 1] + new + data[found.end() - 1 :]
    place = rng.randrange(len(data) + 1)
    return data[:place] + new + data[place:]


def revalue(data: bytes, rng: random.Random) -> bytes:
    """Replaces, removes or repeats a value of JSON, or of one of JSON's lines; what is not JSON is flipped."""
    lines = data.split(b"\n")
    number = rng.randrange(len(lines))
    for part, join in ((data, lambda new: new), (lines[number], lambda new: _with(lines, number, new))):
        try:
            return join(_dumped(_changed(json.loads(part), rng), rng))
        except (ValueError, RecursionError):
            continue
    return flip(data, rng)


def setting(data: bytes, rng: random.Random) -> bytes:
    """Puts a key that transformers knows into a config, or into a part of it, with a strange value."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        return flip(data, rng)
    if not isinstance(config, dict):
        return flip(data, rng)
    levels = [
        config,
        *(config[part] for part in ("text_config", "vision_config") if isinstance(config.get(part), dict)),
    ]
    ropes = {
        kind: {"rope_type": kind, "factor": _odd(rng)} for kind in ("linear", "dynamic", "yarn", "llama3", "longrope")
    }
    value = rng.choice((_odd(rng), {"full_attention": _odd(rng)}, *ropes.values()))
    rng.choice(levels)[rng.choice(SETTINGS)] = value
    return _dumped(config, rng)


def twice(data: bytes, rng: random.Random) -> bytes:
    """Damages it twice."""
    for _ in range(2):
        data = rng.choice(BYTES)(data, rng)
    return data


def long_list(data: bytes, rng: random.Random) -> bytes:
    """Makes a list in the footer of a parquet file claim a number of items; the footer's length stays right."""
    size = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - size
    places = [place + 1 for place in range(start, len(data) - 9) if data[place] == 0x19] if start > 0 else []
    if not places:
        return lie(data, rng)
    place, count = rng.choice(places), rng.choice((100, 70_000, 1_000_000, 2**31 - 1))
    digits = b"".join(bytes([count >> shift & 127 | (128 if count >> shift > 127 else 0)]) for shift in range(0, 35, 7))
    number = digits[: next(end for end, digit in enumerate(digits, start=1) if digit < 128)]
    footer = data[start:place] + bytes([0xF0 | data[place] & 15]) + number + data[place + 1 : -8]
    return data[:start] + footer + len(footer).to_bytes(4, "little") + data[-4:]


BYTES: tuple[Mutator, ...] = (flip, truncate, splice, lie)
TEXT: tuple[Mutator, ...] = (flip, truncate, splice, lie, nest, insert, twice)
JSON: tuple[Mutator, ...] = (*TEXT, revalue, revalue, revalue)


def _with(lines: list[bytes], number: int, new: bytes) -> bytes:
    return b"\n".join([*lines[:number], new, *lines[number + 1 :]])


def _odd(rng: random.Random) -> Any:
    deep: Any = 0
    for _ in range(rng.choice((3, 99, 200))):
        deep = [deep] if rng.random() < 0.5 else {"x": deep}
    simple = (
        None,
        True,
        False,
        0.5,
        float("inf"),
        float("nan"),
        [],
        {},
        [[]],
        [None],
        {"type": "image"},
        {"bytes": "x"},
    )
    return rng.choice((*simple, rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(PATHS), deep))


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with one place of it changed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return _odd(rng)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, kind = rng.choice(list(keys)), rng.random()
    if kind < 0.1:
        rest = [
            (other, part)
            for other, part in (value.items() if isinstance(value, dict) else enumerate(value))
            if other != key
        ]
        return dict(rest) if isinstance(value, dict) else [part for _, part in rest]
    if kind < 0.2 and isinstance(value, dict):
        return {**value, rng.choice((*TEXTS, *FIELDS)): _odd(rng)}
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[key] = _changed(value[key], rng)
    return copied


def _dumped(value: Any, rng: random.Random) -> bytes:
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
