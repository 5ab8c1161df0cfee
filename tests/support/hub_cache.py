"""A cache of the Hugging Face hub, laid out as `huggingface_hub` lays it out, and nothing else to ask."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache

COMMIT = hashlib.sha1(b"one").hexdigest()
OTHER = hashlib.sha1(b"other").hexdigest()


def use(cache: Path, monkeypatch: pytest.MonkeyPatch, *, offline: bool = True) -> Path:
    """Lets huggingface_hub use a folder as its cache, without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    return cache


def add(
    cache: Path,
    name: str,
    files: Mapping[str, bytes],
    *,
    kind: str = "model",
    commit: str = COMMIT,
    ref: str = "main",
    listed: tuple[str, ...] | None = None,
) -> Path:
    """Adds a commit: its files are links to blobs, `ref` names it, and `listed` is the list of all its files, if it is kept."""
    home = cache / f"{kind}s--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for path, content in files.items():
        blob = home / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content)
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).symlink_to(blob)
    if ref:
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / ref).write_text(commit)
    if listed is not None:
        write_tree_cache(str(home), commit, {path: TreeCacheEntry(1, "0" * 40) for path in listed})
    return snapshot


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, for `add`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
