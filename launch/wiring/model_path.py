"""Finds the files of a model that a user names: a folder, a .gguf file, a model of the hub, or one that comes as a package."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from merit_jax.core.hub import PREFIX, Snapshot, cached_snapshot, parse_hub_name, snapshot
from merit_jax.models import smollm2_path
from merit_jax.models.io.hf_folder import INDEX, SINGLE
from merit_jax.models.io.peft_config import WEIGHTS as ADAPTER_WEIGHTS
from merit_jax.models.io.peft_config import is_adapter
from merit_jax.workdir.paths import is_remote

log = logging.getLogger("merit_jax")

SHIPPED: dict[str, Callable[[], Path]] = {"smollm2-135m-instruct": smollm2_path}
"""Values of `config.model.path` that are no paths: models that come as Python packages."""

SETTINGS = (
    "*.json",
    "*.jinja",
    "*.txt",
    "*.tiktoken",
    "*.model",
    *(f"{name}*" for name in ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING")),
)
"""Patterns of the files that are fetched besides weights: config, tokenizer, image processor, templates, licence."""

WEIGHTS = ("*.safetensors",)
"""Patterns of the files of weights that are fetched: never pickles, which run code, nor code itself."""

IGNORED = ("*/*.safetensors", "consolidated*", "onnx/*", "openvino/*", "original/*", "gguf/*", "runs/*")
"""Patterns of the same weights in other forms, which are not fetched."""

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


class ModelFiles(NamedTuple):
    """The files of a model.

    Attributes:
        path: Folder or .gguf file.
        origin: "OWNER/NAME@COMMIT" of a model of the hub; empty for another.
    """

    path: Path
    origin: str = ""


def resolve(path: str, where: str = "model.path") -> ModelFiles:
    """Returns the files of a model; one of the hub that is not in the local cache is downloaded.

    A local folder or file of that name comes before the hub's; "hub:" in front means the hub's.

    Args:
        path: As the user writes it: a path, OWNER/NAME or OWNER/NAME@REVISION, or a key of `SHIPPED`.
        where: The setting that it is of, for error messages.

    Raises:
        ValueError: It is empty, remote, or of the hub and cannot be had; the message says what to do.
    """
    found = _local(path, where)
    if found is not None:
        return found
    wanted = parse_hub_name(path, "model")
    if wanted is None:
        return ModelFiles(Path(path))
    made = snapshot(wanted, f"{where} = {path!r}", (*SETTINGS, *WEIGHTS), IGNORED, missing=missing_file)
    log.info("%s = %s: %s", where, path, made.folder)
    return ModelFiles(made.folder, made.origin)


def resolve_settings(path: str, where: str = "model.path") -> ModelFiles:
    """Returns the files of a model as `resolve` does, for those who read no weights: they are not downloaded.

    Raises:
        ValueError: As for `resolve`.
    """
    found = _local(path, where)
    wanted = None if found is not None else parse_hub_name(path, "model")
    if wanted is None:
        return found or ModelFiles(Path(path))
    made = snapshot(wanted, f"{where} = {path!r}", SETTINGS, IGNORED, missing=lambda f: _lacks(f, "config.json"))
    return ModelFiles(made.folder, made.origin)


def is_here(path: str) -> bool:
    """Returns whether a model can be opened without a network: a local path, a shipped one, or one that the cache has."""
    try:
        found = None if is_remote(path) else _local(path, "model")
    except (ImportError, ValueError):
        return False
    if found is not None:
        return found.path.exists()
    made = _cached(path)
    return made is not None and not missing_file(made.folder)


def _local(path: str, where: str) -> ModelFiles | None:
    """Returns the files of a model that is no model of the hub; None where the name may be one of those."""
    if not path:
        raise ValueError(
            f"{where} is not set; give a Hugging Face folder, a .gguf file, OWNER/NAME of the hub, or one of "
            + ", ".join(SHIPPED)
        )
    if is_remote(path):
        raise ValueError(f"{where} = {path}: weights are read from local files; copy the folder to this machine first")
    if path in SHIPPED:
        return ModelFiles(SHIPPED[path]())
    if path.startswith(PREFIX):
        if parse_hub_name(path, "model") is None:
            raise ValueError(f"{where} = {path!r}; expected hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
        return None
    if Path(path).exists() or parse_hub_name(path, "model") is None:
        if Path(path).exists() and _cached(path) is not None:
            log.warning(
                "%s = %s: the local folder of that name, not the hub's model; for that, write hub:%s", where, path, path
            )
        return ModelFiles(Path(path))
    return None


def _cached(path: str) -> Snapshot | None:
    wanted = parse_hub_name(path, "model")
    return None if wanted is None else cached_snapshot(wanted, (*SETTINGS, *WEIGHTS), IGNORED)


def missing_file(folder: Path) -> str:
    """Returns the name of a file that a folder of a model or adapter lacks: its config, weights, tokenizer; "" of none."""
    if is_adapter(folder):
        return _lacks(folder, ADAPTER_WEIGHTS)
    index = folder / INDEX
    if index.is_file() and not (folder / SINGLE).is_file():
        try:
            weights = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            weights = []  # whoever opens the folder says what is wrong with it
    else:
        weights = [SINGLE]
    tokenizer = [] if any((folder / name).is_file() for name in TOKENIZERS) else list(TOKENIZERS[:1])
    return next((name for name in ("config.json", *weights, *tokenizer) if _lacks(folder, name)), "")


def _lacks(folder: Path, name: str) -> str:
    return "" if (folder / name).is_file() else name
