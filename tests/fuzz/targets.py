"""Everything that reads files from elsewhere: its valid files, how they are damaged, and the call that reads them."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from transformers import CONFIG_MAPPING

from merit_jax.models.families.registry import FAMILIES
from tests.fuzz import corpus, mutators
from tests.fuzz.mutators import Mutator

LOADED = [CONFIG_MAPPING[kind] for kind in FAMILIES if kind in CONFIG_MAPPING]
"""Classes that transformers imports when they are asked for, which would look like reading files elsewhere."""


class Target(NamedTuple):
    """One reader.

    Attributes:
        file: Name of the file that is damaged.
        read: Reads it, in the folder it is given.
        seeds: Its valid contents, made in a folder that may be written to.
        mutators: How it is damaged.
        inputs: Damaged files that the long campaign makes.
        beside: Puts other files into the folder, once.
    """

    file: str
    read: Callable[[Path], Any]
    seeds: Callable[[Path], Sequence[bytes]]
    mutators: Sequence[Mutator]
    inputs: int
    beside: Callable[[Path], None] = lambda folder: None


def _manifest(folder: Path, name: str) -> None:
    from merit_jax.data.group_by import forget
    from merit_jax.data.manifest import read_manifest

    forget()
    read_manifest(str(folder / name))


def _records(folder: Path, name: str) -> None:
    """Reads the rows, and opens the images that they name."""
    from merit_jax.data.message_texts import images_of
    from merit_jax.data.records import read_records
    from merit_jax.models.processing.image_loading import image_size, is_animated, open_image

    errors: list[ValueError] = []
    records = read_records(str(folder / name), on_error=errors.append)
    for record in records:
        for image in images_of(record.messages):
            for read in (image_size, is_animated, open_image):
                try:
                    read(image)
                except ValueError as error:
                    errors.append(error)
    if errors:
        raise errors[0]


def _container(folder: Path) -> None:
    """Reads a file of records as lines and as a list; a record is never in two errors."""
    from merit_jax.data.records import read_records

    errors: list[ValueError] = []
    for name in ("c.json", "c.jsonl"):
        (folder / name).write_bytes((folder / "c").read_bytes())
        records = read_records(str(folder / name), on_error=errors.append)
        places = [record.where for record in records] + [str(error).partition(": ")[0] for error in errors]
        assert len(places) == len(set(places)), places
    assert all(len(str(error)) < 2000 for error in errors), "an error prints the data"
    if errors:
        raise errors[0]


def _split(folder: Path) -> None:
    """Makes files of the names in a list, and reads them as a glob: each is used or said not to be."""
    from merit_jax.data.manifest import read_manifest

    place = folder / "named"
    place.mkdir(exist_ok=True)
    for path in place.iterdir():
        path.unlink()
    for name in (folder / "names").read_text(errors="replace").splitlines()[:9]:
        if name not in ("", ".", "..") and not set("/\0") & set(name) and len(name.encode()) < 200:
            (place / name).touch()
    entries = read_manifest(f"{place}/[!.]*")
    used = [file for e in entries for file in (*e.files, *e.held_out_files, *e.unused_files)]
    assert sorted(used) == sorted(str(path) for path in place.iterdir() if not path.name.startswith("."))


def _safetensors(folder: Path) -> None:
    from merit_jax.models.io.safetensors import STORED, read_specs, read_tensor

    for key, spec in read_specs(folder / "model.safetensors", STORED).items():
        assert spec.nbytes == read_tensor(folder / "model.safetensors", key).nbytes


def _folder(folder: Path) -> None:
    from merit_jax.models.io.checkpoint import open_checkpoint

    opened = open_checkpoint(folder)
    for key in opened.specs:
        opened.read(key)


def _config(folder: Path) -> None:
    from merit_jax.models.families.registry import parse_config
    from merit_jax.models.io.hf_folder import read_json

    parse_config(read_json(folder / "config.json"), str(folder / "config.json"))


def _pretrained(folder: Path) -> None:
    from merit_jax.models.pretrained.load import open_pretrained

    opened = open_pretrained(folder)
    for path in opened.paths():
        opened.read(path)


def _gguf(folder: Path) -> None:
    from merit_jax.models.io.gguf import GGUFFile

    opened = GGUFFile(folder / "model.gguf")
    for key in opened.specs:
        opened.read(key)


def _gguf_tokenizer(folder: Path) -> None:
    from merit_jax.models.processing.tokenizer import load_tokenizer

    load_tokenizer(folder / "model.gguf")("ab")


def _tokenizer(folder: Path) -> None:
    from merit_jax.models.processing.tokenizer import load_tokenizer

    load_tokenizer(folder)


def _processor(folder: Path) -> None:
    from merit_jax.models.pretrained.processor import load_processor

    load_processor(folder)


def _merge(folder: Path) -> None:
    """Merges a model into its base: what is not refused computes the same, and its merge is finite."""
    import numpy as np

    from merit_jax.launch.wiring.merge_folders import open_models
    from merit_jax.merging import MERGERS
    from merit_jax.models.families.registry import parse_config

    theta0, paired = open_models(str(folder / "base"), [str(folder / "odd")])
    merge = MERGERS["uniform"].prepare(theta0, paired.models, [1.0], {})
    assert all(np.isfinite(merge.value(paired.copies.get(path, path))).all() for path in theta0.paths())
    base, odd = theta0.config, paired.models[0].folder.config
    try:
        found = parse_config(odd, "odd")
    except ValueError:  # a setting that this project does not implement, where the merge is not its business
        return
    assert found == parse_config(base, "base")


def _merge_folders(folder: Path) -> None:
    for name in ("base", "odd"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(corpus.safetensors())
        (folder / name / "config.json").write_bytes(_QWEN2)


def _vocabulary(folder: Path) -> None:
    from merit_jax.models.processing.vocabulary import check_vocabularies

    check_vocabularies(folder, folder)


def _image(folder: Path) -> None:
    from merit_jax.models.processing.image_loading import image_size, is_animated, open_image

    reference = {"type": "image", "path": str(folder / "image")}
    upright = open_image(reference)
    assert image_size(reference) == upright.size[::-1]
    is_animated(reference)


def _image_size(folder: Path) -> None:
    from merit_jax.models.processing.image_loading import image_size

    image_size({"type": "image", "bytes": (folder / "image").read_bytes()})


@cache
def _plain_tokenizer() -> Any:
    from tests.support.tiny_tokenizer import tiny_tokenizer

    return tiny_tokenizer()


def _template(folder: Path) -> None:
    from merit_jax.data.chat_template import encode

    tokenizer = _plain_tokenizer()
    tokenizer.chat_template = (folder / "template.jinja").read_text(encoding="utf-8", errors="replace")
    messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"})
    encode(tokenizer, messages, 64)


_QWEN2 = json.dumps({**corpus.LLAMA, "model_type": "qwen2"}).encode()


def _configs(folder: Path) -> list[bytes]:
    """Configs of all families."""
    from tests.support import tiny_tiles, tiny_vision

    tiny_vision.folder(folder / "qwen")
    qwen = json.loads((folder / "qwen" / "config.json").read_text())
    tiles = [tiny_tiles.hf_config(kind) for kind in ("clip", "smolvlm")]
    configs = [corpus.LLAMA, {**corpus.LLAMA, "model_type": "qwen2"}, qwen, *tiles]
    return [json.dumps(config).encode() for config in configs]


def _weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(corpus.safetensors())


def _shards(folder: Path) -> None:
    for name, part in (("a.safetensors", slice(0, 10)), ("b.safetensors", slice(10, None))):
        (folder / name).write_bytes(corpus.safetensors(part))
    (folder / "config.json").write_text(json.dumps(corpus.LLAMA))


def _index() -> bytes:
    keys = list(corpus.tensors())
    where = {key: "a.safetensors" if place < 10 else "b.safetensors" for place, key in enumerate(keys)}
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": where}).encode()


def _save_tokenizer(folder: Path) -> None:
    _plain_tokenizer().save_pretrained(folder)


def _vision(folder: Path) -> None:
    from tests.support import tiny_vision

    tiny_vision.folder(folder)


def _vision_file(folder: Path, name: str) -> list[bytes]:
    _vision(folder / "made")
    return [(folder / "made" / name).read_bytes()]


def _tokenizer_file(folder: Path, name: str) -> list[bytes]:
    _save_tokenizer(folder / "made")
    return [(folder / "made" / name).read_bytes()]


def _rows(folder: Path) -> list[bytes]:
    return [corpus.lines(rows) for rows in corpus.ROWS.values()]


def _lists(folder: Path) -> list[bytes]:
    return [json.dumps(rows).encode() for rows in corpus.ROWS.values()]


def _gguf_seed(folder: Path) -> list[bytes]:
    return [corpus.gguf_file(folder / "seed.gguf")]


TARGETS: dict[str, Target] = {
    "manifest_json": Target(
        "m.json",
        lambda folder: _manifest(folder, "m.json"),
        lambda _: [json.dumps(corpus.MANIFEST).encode()],
        mutators.JSON,
        14_000,
    ),
    "manifest_yaml": Target(
        "m.yaml", lambda folder: _manifest(folder, "m.yaml"), lambda _: [corpus.YAML.encode()], mutators.TEXT, 9_000
    ),
    "rows_jsonl": Target("r.jsonl", lambda folder: _records(folder, "r.jsonl"), _rows, mutators.JSON, 26_000),
    "rows_json": Target("r.json", lambda folder: _records(folder, "r.json"), _lists, mutators.JSON, 10_000),
    "rows_parquet": Target(
        "r.parquet",
        lambda folder: _records(folder, "r.parquet"),
        lambda _: [corpus.parquet()],
        (*mutators.BYTES, mutators.long_list),
        6_000,
    ),
    "containers": Target(
        "c", _container, lambda _: [corpus.lines(corpus.FLAN), *corpus.CONTAINERS.values()], mutators.JSON, 4_000
    ),
    "names": Target("names", _split, lambda _: [names.encode() for names in corpus.NAMES], mutators.TEXT, 4_000),
    "safetensors": Target(
        "model.safetensors", _safetensors, lambda _: [corpus.safetensors()], (*mutators.BYTES, mutators.insert), 9_000
    ),
    "index": Target(
        "model.safetensors.index.json", _folder, lambda _: [_index()], mutators.JSON, 5_000, beside=_shards
    ),
    "config": Target("config.json", _config, _configs, (*mutators.JSON, mutators.setting, mutators.setting), 8_000),
    "pretrained": Target(
        "config.json", _pretrained, lambda _: [json.dumps(corpus.LLAMA).encode()], mutators.JSON, 600, beside=_weights
    ),
    "gguf": Target("model.gguf", _gguf, _gguf_seed, mutators.BYTES, 6_000),
    "gguf_tokenizer": Target("model.gguf", _gguf_tokenizer, _gguf_seed, mutators.BYTES, 1_000),
    "tokenizer": Target(
        "tokenizer.json",
        _tokenizer,
        lambda folder: _tokenizer_file(folder, "tokenizer.json"),
        mutators.JSON,
        500,
        beside=_save_tokenizer,
    ),
    "tokenizer_config": Target(
        "tokenizer_config.json",
        _tokenizer,
        lambda folder: _tokenizer_file(folder, "tokenizer_config.json"),
        mutators.JSON,
        500,
        beside=_save_tokenizer,
    ),
    "special_tokens": Target(
        "special_tokens_map.json",
        _tokenizer,
        lambda _: [b'{"eos_token": "<|end|>", "additional_special_tokens": ["a", "b"]}'],
        mutators.JSON,
        300,
        beside=_save_tokenizer,
    ),
    "image_processor": Target(
        "preprocessor_config.json",
        _processor,
        lambda folder: _vision_file(folder, "preprocessor_config.json"),
        mutators.JSON,
        500,
        beside=_vision,
    ),
    "vocabulary": Target(
        "tokenizer.json", _vocabulary, lambda folder: _tokenizer_file(folder, "tokenizer.json"), mutators.JSON, 2_000
    ),
    "merge_config": Target("odd/config.json", _merge, lambda _: [_QWEN2], mutators.JSON, 2_000, beside=_merge_folders),
    "merge_weights": Target(
        "odd/model.safetensors", _merge, lambda _: [corpus.safetensors()], mutators.BYTES, 2_000, beside=_merge_folders
    ),
    "image": Target("image", _image, lambda _: corpus.images(), mutators.BYTES, 8_000),
    "image_size": Target("image", _image_size, lambda _: corpus.images(), mutators.BYTES, 5_000),
    "template": Target(
        "template.jinja",
        _template,
        lambda _: [text.encode() for text in (*corpus.TEMPLATES, *corpus.ATTACKS)],
        mutators.TEXT,
        2_500,
    ),
}
"""Name -> reader."""
