"""One key of a config.json with another value: which keys there are, and which values."""

import copy
import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import AutoConfig, configuration_utils, modeling_rope_utils
from transformers.activations import ACT2FN

ABSENT = object()
"""Stands for a key that is taken out."""
PARTS = ("text_config", "vision_config")
LEGACY = re.compile(r"""kwargs\.(?:pop|get)\(\s*"(\w+)""")
"""Keys that transformers translates into others."""
ROPES = (
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    },
    {"rope_type": "default", "rope_theta": 77.0},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"full_attention": {"rope_type": "default", "rope_theta": 77.0}},
)
WORDS = {
    "layer_types": (["sliding_attention", "full_attention"], ["chunked_attention"] * 2, ["full_attention"] * 2),
    "model_type": ("llama", "qwen2", "mistral", "clip_vision_model", "siglip_vision_model"),
    "rope_type": ("linear", "dynamic", "yarn", "llama3", "default", "axial"),
    "original_max_position_embeddings": (8, 64),
}
"""Values for keys whose type says too little."""


class Change:
    """One key with another value."""

    def __init__(self, place: tuple[str, ...], value: Any):
        self.place, self.value = place, value

    def __repr__(self) -> str:
        return f"{'.'.join(self.place)} = {'absent' if self.value is ABSENT else repr(self.value)}"


def levels(raw: Mapping[str, Any]) -> dict[tuple[str, ...], list[Any]]:
    """The place of every part of a config, with the classes of transformers that read it."""
    config = AutoConfig.for_model(**copy.deepcopy(dict(raw)))
    found: dict[tuple[str, ...], list[Any]] = {(): [type(config)]}
    for part in PARTS:
        if hasattr(config, part):
            found.setdefault((part,) if part in raw else (), []).append(type(getattr(config, part)))
    return found


def changes(raw: Mapping[str, Any], read: set[str]) -> Iterator[Change]:
    """Yields every change: of keys in the file, of keys that the classes declare, and of those that PyTorch reads."""
    sources = "".join(inspect.getsource(module) for module in (configuration_utils, modeling_rope_utils))
    usual = {*LEGACY.findall(sources), *read}
    for place, kinds in levels(raw).items():
        level = raw[place[0]] if place else raw
        declared = {field.name: field.type for kind in kinds for field in dataclasses.fields(kind)}
        methods = {name for name in usual if callable(getattr(kinds[0], name, None))}
        for key in sorted({*level, *declared, *usual} - methods - {*PARTS, "sub_configs", "attribute_map"}):
            if (*place, key) == ("model_type",):
                continue
            now = level.get(key, next((found for kind in kinds if (found := _default(kind, key)) is not None), None))
            yield from (Change((*place, key), value) for value in values(key, now, declared.get(key)))
            if key in level:
                yield Change((*place, key), ABSENT)
            for inner, old in level[key].items() if isinstance(level.get(key), dict) else ():
                yield from (Change((*place, key, inner), value) for value in values(inner, old, None))
                yield Change((*place, key, inner), ABSENT)


def _default(kind: Any, key: str) -> Any:
    """The value of a key that the file leaves out."""
    found = getattr(kind, key, None)
    return found if isinstance(found, bool | int | float | str | list | tuple | dict) else None


def values(key: str, now: Any, declared: Any) -> Iterator[Any]:
    """Yields other values for a key."""
    said = str(declared)
    found: list[Any] = [None, *WORDS.get(key, ())]
    if key in ("rope_parameters", "rope_scaling"):
        found += [{**(now or {}), **rope} for rope in ROPES]
    elif isinstance(now, bool):
        found.append(not now)
    elif isinstance(now, int):
        found += [now + 1 if now in (0, 1) else now // 2, *([[now, now]] if "list[int]" in said else [])]
    elif isinstance(now, float):
        found.append(2 * now + 0.5)
    elif isinstance(now, str):
        found += [*typing.get_args(declared), *(("gelu", "relu", "gelu_pytorch_tanh") if now in ACT2FN else ())]
    elif isinstance(now, list | tuple) and now and isinstance(now[0], int):
        found += [list(now[::-1]), list(now[1:]), [*now[:-1], now[-1] + 1]]
    elif now is None and "dict" not in said:
        found += [False, 4]
    for number, value in enumerate(found):
        if not (type(value) is type(now) and value == now) and value not in found[:number]:
            yield value
