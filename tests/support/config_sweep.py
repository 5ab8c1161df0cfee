"""Checkpoints with one config key changed, here and in PyTorch: what becomes of each."""

import contextlib
import copy
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from transformers import AutoConfig, configuration_utils

import tests.support.tiny as tiny
from merit_jax.models import load_pretrained, read_config
from tests.support.config_changes import ABSENT, PARTS, Change, changes

TOLERANCE = 1e-3
COMPUTING = re.compile(
    r"transformers/(models/|masking_utils|modeling_rope_utils|modeling_layers|integrations/|activations|utils/generic)"
)
"""Files of transformers that compute."""


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

    def compute(self, keep: Callable[[Change], bool] = lambda change: True) -> None:
        """Computes what `parse` left open."""
        found: dict[Any, np.ndarray | ValueError] = {}
        for change, config in self.computed.items():
            if not keep(change):
                continue
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
