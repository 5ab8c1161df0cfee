"""Checkpoints with one config key changed: which keys PyTorch reads, other values for them, and what becomes of each."""

import contextlib
import copy
import dataclasses
import inspect
import json
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from transformers import AutoConfig, configuration_utils, modeling_rope_utils
from transformers.activations import ACT2FN

import tests.support.tiny as tiny
from models import load_pretrained, read_config

ABSENT = object()
"""Stands for a key that is taken out."""
TOLERANCE = 1e-3
PARTS = ("text_config", "vision_config")
LEGACY = re.compile(r"""kwargs\.(?:pop|get)\(\s*"(\w+)""")
"""Keys that transformers translates into others."""
COMPUTING = re.compile(
    r"transformers/(models/|masking_utils|modeling_rope_utils|modeling_layers|integrations/|activations)"
)
"""Files of transformers that compute."""
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


class MissingError(Exception):
    """PyTorch computes with weights that no file holds."""


class Case(NamedTuple):
    """A tiny checkpoint and its input.

    Attributes:
        path: Folder, saved by transformers.
        raw: Content of its config.json.
        auto: Class of transformers that loads it.
        inputs: Input of the PyTorch model.
        rows: Config -> batch of ours with the same content.
    """

    path: Path
    raw: dict[str, Any]
    auto: Any
    inputs: Mapping[str, Any]
    rows: Callable[[Any], Any]


class Change:
    """One key with another value."""

    def __init__(self, place: tuple[str, ...], value: Any):
        self.place, self.value = place, value

    def __repr__(self) -> str:
        return f"{'.'.join(self.place)} = {'absent' if self.value is ABSENT else repr(self.value)}"


def written(case: Case, folder: Path, change: Change | None) -> Path:
    """A folder with the case's files, but for one key of config.json."""
    if not folder.exists():
        folder.mkdir()
        for file in case.path.iterdir():
            if file.is_file() and file.name != "config.json":
                (folder / file.name).symlink_to(file)
    raw = copy.deepcopy(case.raw)
    if change is not None:
        level = raw
        for key in change.place[:-1]:
            level = level[key]
        if change.value is ABSENT:
            level.pop(change.place[-1], None)
        else:
            level[change.place[-1]] = change.value
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def in_torch(case: Case, folder: Path) -> np.ndarray:
    """Logits of the real tokens by transformers, from a folder.

    Raises:
        MissingError: Some of its tensors are not in the files.
    """
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        peer, report = case.auto.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
        )
        logits = peer.eval()(**case.inputs).logits.numpy()
    missing = [*report["missing_keys"], *report["mismatched_keys"]]
    if missing:
        raise MissingError(f"PyTorch makes up {missing[0]!r}")
    return logits[_real(case)]


def in_jax(case: Case, folder: Path) -> np.ndarray:
    """Logits of the real tokens by us, from a folder."""
    model, params = load_pretrained(folder)
    rows = case.rows(folder, model.config)
    with jax.disable_jit():
        return tiny.logits(model, params, rows)[_real(case)]


def peer_config(folder: Path) -> dict[str, Any]:
    """The config of a folder as transformers understands it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoConfig.from_pretrained(folder).to_dict()


def keys_read(case: Case) -> set[str]:
    """The keys that PyTorch reads to make the model and to run it."""
    import torch

    with watched() as read, torch.no_grad():
        config = AutoConfig.for_model(**copy.deepcopy(case.raw))
        case.auto.from_config(config, attn_implementation="eager")(**case.inputs)
    return read


class Sweep:
    """The outcomes of every change of a case.

    Attributes:
        case: The checkpoint.
        folder: Where the changed ones are written, one after the other.
        refused: Change -> our message.
        equal: Change -> how far it moves the logits, which are the same here and there.
        wrong: Change -> what differs.
        computed: Change -> our config, where it is another than that of the unchanged checkpoint.
    """

    def __init__(self, case: Case, folder: Path):
        self.case, self.folder = case, written(case, folder, None)
        self.config, self.peer = read_config(folder), peer_config(folder)
        self.expected, self.read = in_torch(case, folder), keys_read(case)
        self.refused: dict[Change, str] = {}
        self.equal: dict[Change, float] = {}
        self.wrong: dict[Change, str] = {}
        self.computed: dict[Change, Any] = {}

    def parse(self, keep: Callable[[Change], bool] = lambda change: True) -> None:
        """Tries every change as far as that needs no model of ours: is it refused, computed, or of no effect in PyTorch too?"""
        for change in filter(keep, changes(self.case.raw, self.read)):
            written(self.case, self.folder, change)
            try:
                config = read_config(self.folder)
            except ValueError as error:
                self.refused[change] = str(error)
                continue
            if config == self.config:
                self._compare(change, self.expected)
            else:
                self.computed[change] = config

    def compute(self) -> None:
        """Computes what `parse` left open."""
        found: dict[Any, np.ndarray | ValueError] = {}
        for change, config in self.computed.items():
            written(self.case, self.folder, change)
            if config not in found:
                try:
                    found[config] = in_jax(self.case, self.folder)
                except ValueError as error:
                    found[config] = error
            logits = found[config]
            if isinstance(logits, ValueError):
                self.refused[change] = str(logits)
            else:
                self._compare(change, logits)

    def _compare(self, change: Change, found: np.ndarray) -> None:
        try:
            changed = different(peer_config(self.folder), self.peer)
            expected = in_torch(self.case, self.folder) if changed & self.read else self.expected
        except MissingError as error:
            self.wrong[change] = str(error)
            return
        except Exception:  # PyTorch cannot
            return
        error = np.abs(found - expected).max()
        if error < TOLERANCE:
            self.equal[change] = float(np.abs(expected - self.expected).max())
        else:
            self.wrong[change] = f"logits differ by {error}"


def _real(case: Case) -> np.ndarray:
    return case.inputs["attention_mask"].numpy() > 0


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """The keys, at any level, that are not the same in two configs."""
    found: set[str] = set()
    for key in {*one, *other}:
        values = (one.get(key, ABSENT), other.get(key, ABSENT))
        if key in PARTS and all(isinstance(value, dict) for value in values):
            found |= different(*values)
        elif values[0] != values[1] or type(values[0]) is not type(values[1]):
            found.add(key)
    return found


@contextlib.contextmanager
def watched() -> Iterator[set[str]]:
    """Collects the keys that the code of models reads of any config of transformers, present or not."""
    kind, seen = configuration_utils.PreTrainedConfig, set()
    original = kind.__getattribute__

    def read(self: Any, name: str) -> Any:
        if not name.startswith("_") and COMPUTING.search(sys._getframe(1).f_code.co_filename):
            seen.add(name)
        return original(self, name)

    kind.__getattribute__ = read
    try:
        yield seen
    finally:
        kind.__getattribute__ = original


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
