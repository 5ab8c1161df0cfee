"""Models and datasets by their names on the Hugging Face hub: found in its local cache, or else downloaded into it.

`huggingface_hub` does the work, and obeys its own settings: `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`, a login.
"""

import errno
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("merit_jax")

PREFIX = "hub:"
"""In front of a name that means the hub, whatever is in the working directory."""

CARD = "README.md"
"""The card of a model or dataset."""

_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)
_OF_THE_DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO))


class HubName(NamedTuple):
    """A model or dataset of the hub, as it is asked for.

    Attributes:
        name: "OWNER/NAME".
        revision: Branch, tag or commit; empty: main.
        kind: "model" or "dataset".
    """

    name: str
    revision: str
    kind: str

    def __str__(self) -> str:
        """Returns it as a user writes it."""
        return self.name + (f"@{self.revision}" if self.revision else "")

    @property
    def command(self) -> str:
        """The command that downloads it."""
        kind = "" if self.kind == "model" else f" --repo-type {self.kind}"
        return f"hf download {self.name}{kind}" + (f" --revision {self.revision}" if self.revision else "")


class Snapshot(NamedTuple):
    """The files of one commit in the cache.

    Attributes:
        folder: The folder that has them.
        origin: "OWNER/NAME@COMMIT".
    """

    folder: Path
    origin: str


def parse_hub_name(text: str, kind: str) -> HubName | None:
    """Reads OWNER/NAME or OWNER/NAME@REVISION, with or without "hub:" in front; None for anything else.

    Examples:
        >>> parse_hub_name("Qwen/Qwen3-0.6B@v1", "model")
        HubName(name='Qwen/Qwen3-0.6B', revision='v1', kind='model')
        >>> parse_hub_name("runs/a/b", "model") is parse_hub_name("./Qwen", "model") is None
        True
    """
    found = _NAME.fullmatch(text.removeprefix(PREFIX))
    if found is None or ".." in text or "--" in text:
        return None
    return HubName(found["name"], found["revision"] or "", kind)


def listed_files(wanted: HubName, commit: str, *, offline: bool) -> list[str] | None:
    """Returns the names of all files of a commit, by the cache or else the hub; None where neither can be asked."""
    import huggingface_hub

    tree = getattr(huggingface_hub, "get_cached_repo_tree", None)  # earlier versions keep no list
    try:
        if tree is not None:
            return [file.path for file in tree(wanted.name, repo_type=wanted.kind, revision=commit)]
    except Exception as error:  # the cache has none, or a damaged one
        log.debug("%s@%s: no list of its files in the cache (%s)", wanted.name, commit, error)
    try:
        if not offline:
            return huggingface_hub.HfApi().list_repo_files(wanted.name, repo_type=wanted.kind, revision=commit)
    except Exception as error:  # no network, or no right
        log.debug("%s@%s: the hub gives no list of its files (%s)", wanted.name, commit, error)
    return None


def cached_snapshot(wanted: HubName, allow: Sequence[str], ignore: Sequence[str] = ()) -> Snapshot | None:
    """Returns the snapshot that the cache has, as far as it can tell that it is whole; None without one. Asks no network."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _download(wanted, allow, ignore, local=True)
    except LocalEntryNotFoundError:
        return None


def snapshot(
    wanted: HubName,
    where: str,
    allow: Sequence[str],
    ignore: Sequence[str] = (),
    missing: Callable[[Path], str] = lambda folder: "",
    offline: bool = False,
) -> Snapshot:
    """Returns the snapshot of the cache, or else downloads the files that it lacks.

    Args:
        wanted: What is asked for.
        where: The setting that asks for it, for error messages.
        allow: fnmatch patterns of the files that are downloaded.
        ignore: Patterns of those of them that are not.
        missing: Returns the name of a file that a folder should have and lacks; "" of a whole one.
        offline: No network is asked, even where `HF_HUB_OFFLINE` is not set.

    Raises:
        ValueError: It is not in the cache, and cannot be downloaded; the message says what to do.
        OSError: The disk cannot take it.
    """
    here = cached_snapshot(wanted, allow, ignore)
    if here is not None and not missing(here.folder):
        return here
    try:
        found = _download(wanted, allow, ignore, local=offline)
    except Exception as error:  # of huggingface_hub, its HTTP client, or the transfer
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise
        partial = cached_snapshot(wanted, [CARD])  # whole or not
        lacks = missing(partial.folder) if partial else ""
        raise ValueError(f"{where}: {_reason(wanted, error, lacks, offline)}") from error
    if lacks := missing(found.folder):
        raise ValueError(f"{where}: {_reason(wanted, None, lacks, offline)}")
    return found


def _download(wanted: HubName, allow: Sequence[str], ignore: Sequence[str], *, local: bool) -> Snapshot:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        wanted.name,
        repo_type=wanted.kind,
        revision=wanted.revision or None,
        allow_patterns=list(allow),
        ignore_patterns=list(ignore) or None,
        local_files_only=local,
    )
    return Snapshot(Path(folder), f"{wanted.name}@{Path(folder).name}")


def _is_listed_without(wanted: HubName, name: str) -> bool:
    """Returns whether the cache knows all files of the commit that is in it, and a name is not among them."""
    here = cached_snapshot(wanted, [CARD])
    listed = listed_files(wanted, here.folder.name, offline=True) if here else None
    return listed is not None and name not in listed


def _cause(error: Exception | None) -> str:
    if error is None:
        return ""
    cause = error.__cause__ or error
    said = str(cause).strip().partition("\n")[0]
    return f" ({type(cause).__name__}: {said:.200})"


def _reason(wanted: HubName, error: Exception | None, lacks: str, offline: bool) -> str:
    """Returns why it is not there, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if error is None and not offline and _is_listed_without(wanted, lacks):
        return (
            f"the {wanted.kind} {wanted} of the hub has no {lacks}, which is needed (weights are read from safetensors, never "
            "from pickles); convert it, or name another"
        )
    page = f"{constants.ENDPOINT}/{'datasets/' * (wanted.kind == 'dataset')}{wanted.name}"
    if isinstance(error, GatedRepoError):
        return (
            f"the {wanted.kind} {wanted.name} is gated: accept its terms at {page}, log in with `hf auth login` "
            "(huggingface-cli login), and run again; or give a local folder"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"the {wanted.kind} {wanted.name} has no revision {wanted.revision!r}; give a branch, tag or commit of {page}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{wanted.name} is neither a local folder nor a {wanted.kind} of the hub that you may read; correct the name, give a "
            "folder, or, for a private one, log in with `hf auth login` (huggingface-cli login)"
        )
    own = wanted.kind == "model"
    cache = f"the hub's cache ({constants.HF_HUB_CACHE})"
    state = f"{cache} has {wanted} without {lacks}"
    if not lacks:
        state = f"{'there is no local folder of that name, and ' * own}{cache} does not have {wanted}"
    if constants.HF_HUB_OFFLINE or offline:
        network = "and no network is asked (HF_HUB_OFFLINE, HF_DATASETS_OFFLINE)"
    else:
        network = f"and the hub cannot be asked{_cause(error)}"
    return (
        f"{state}, {network}; run `{wanted.command}` where there is a network, copy its cache here or set HF_HUB_CACHE to it, or "
        f"{'give the path of a local folder' if own else 'name local files, in file_name or by a glob'}"
    )
