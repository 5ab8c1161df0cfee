"""Opens the tokenizer and the image processor of a folder from its own files alone: no request, no code, no file elsewhere."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.constants

from merit_jax.models.io.folder_files import known_files
from merit_jax.models.io.hf_folder import read_json

IMAGE_PROCESSORS = (
    "CLIPImageProcessor",
    "Gemma3ImageProcessor",
    "Idefics3ImageProcessor",
    "LlavaImageProcessor",
    "Qwen2VLImageProcessor",
    "SiglipImageProcessor",
    "SmolVLMImageProcessor",
    "ViTImageProcessor",
)
"""Types of image processors that are opened, each with or without "Fast" or "Pil" behind; others may fetch files."""
GENERIC_TOKENIZERS = ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend", "BloomTokenizer")
_PATHS = ("_file", "_files", "_path", "_dir", "_folder")
_offline = threading.Lock()


def open_tokenizer(path: Path) -> Any:
    """Opens the tokenizer of a folder, a `transformers.PreTrainedTokenizerBase`.

    Raises:
        ValueError: Its settings name files elsewhere, or a class that is no tokenizer.
        Exception: transformers and tokenizers fail on damaged files in any way.
    """
    from transformers import AutoTokenizer

    files = {file.name: file for file in known_files(path)}
    config = _settings(files, "config.json")
    settings, special = (_settings(files, name) for name in ("tokenizer_config.json", "special_tokens_map.json"))
    for name, found in (("config.json", config), ("tokenizer_config.json", settings)):
        _check_class(found.get("tokenizer_class"), f"{path / name}: tokenizer_class")
    if odd := sorted(key for key in special if not key.endswith(("_token", "_tokens"))):
        raise ValueError(f"{path / 'special_tokens_map.json'}: {odd[0]!r:.80} names no token; delete the key")
    elsewhere = _paths(settings, files, path / "tokenizer_config.json")
    with offline():
        return AutoTokenizer.from_pretrained(
            path, config=_bare(config), local_files_only=True, trust_remote_code=False, **elsewhere
        )


def open_image_processor(path: Path) -> Any:
    """Opens the image processor of a folder, with Pillow behind it.

    Raises:
        ValueError: It is of another type than `IMAGE_PROCESSORS`.
        Exception: transformers fails on damaged settings in any way.
    """
    from transformers import AutoImageProcessor

    files = {file.name: file for file in known_files(path)}
    config, settings, outer = (_settings(files, f"{name}config.json") for name in ("", "preprocessor_", "processor_"))
    nested = outer.get("image_processor")
    for found in (nested if isinstance(nested, Mapping) else {}, settings, config):
        for key, part in (("image_processor_type", "ImageProcessor"), ("feature_extractor_type", "FeatureExtractor")):
            kind = found.get(key)
            name = kind.removesuffix("Fast").removesuffix("Pil") if isinstance(kind, str) else kind
            known = [name.replace("ImageProcessor", part) for name in IMAGE_PROCESSORS]
            if kind is not None and name not in known:
                raise ValueError(f"{key} = {kind!r:.80}; expected one of {', '.join(known)}")
    with offline():
        return AutoImageProcessor.from_pretrained(
            path, config=_bare(config), backend="pil", local_files_only=True, trust_remote_code=False
        )


@contextmanager
def offline() -> Iterator[None]:
    """Keeps Hugging Face's libraries from the network, whatever a file asks for; restores the setting at the end."""
    constants = huggingface_hub.constants
    with _offline:
        before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


def _settings(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    return read_json(files[name]) if name in files else {}


def _bare(config: Mapping[str, Any]) -> Any:
    """Returns a `PreTrainedConfig` that says only which type the model is; other settings do not matter for files beside it."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    kind = config.get("model_type")
    made = CONFIG_MAPPING[kind]() if isinstance(kind, str) and kind in CONFIG_MAPPING else PreTrainedConfig()
    made.tokenizer_class = config.get("tokenizer_class")
    return made


def _check_class(name: Any, where: str) -> None:
    """Refuses a name that transformers has for something else than a tokenizer."""
    import transformers
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    if name is None:
        return
    if not isinstance(name, str):
        raise ValueError(f"{where} = {name!r:.80}; expected the name of a class")
    known = {*GENERIC_TOKENIZERS, *filter(None, TOKENIZER_MAPPING_NAMES.values())}
    plain = {kind.removesuffix("Fast") for kind in known}
    theirs = set(dir(transformers)) & {name, name.removesuffix("Fast")}
    if name.removesuffix("Fast") not in plain and theirs:
        raise ValueError(
            f"{where} = {name!r:.80} is no tokenizer of a language model; set it to 'PreTrainedTokenizerFast'"
        )


def _paths(settings: Mapping[str, Any], files: Mapping[str, Path], where: Path) -> dict[str, None]:
    """Returns the settings to drop, which name files of the machine that they were written on.

    Raises:
        ValueError: One that would be followed names a file that is none of the folder's.
    """
    versions = settings.get("fast_tokenizer_files") or ()
    for name in versions if isinstance(versions, list | tuple) else (versions,):
        if name not in files:
            raise ValueError(
                f"{where}: fast_tokenizer_files names {name!r:.80}, no tokenizer file of the folder; delete it"
            )
    for key in ("gguf_file", "init_inputs"):
        if settings.get(key):
            raise ValueError(f"{where}: {key} = {settings[key]!r:.80} is not supported; delete the key")
    dropped = {key for key in settings if key.endswith(_PATHS) and key != "fast_tokenizer_files"}
    return dict.fromkeys(dropped | ({"vocab", "merges"} & settings.keys()))
