"""The kinds of artifact that a stage leaves: each knows its record, how it is read, and how it is written whole."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from etils import epath

from merit_jax.workdir.artifacts import (
    INPUTS,
    is_current,
    plain,
    read_arrays,
    read_inputs,
    read_json,
    write_arrays,
    write_json,
)
from merit_jax.workdir.checksums import file_checksums, verify_checksums
from merit_jax.workdir.paths import is_there

Inputs = Mapping[str, Any]
"""Everything that decides an artifact's content, as JSON values."""


@runtime_checkable
class Artifact(Protocol):
    """The result of a stage, on disk.

    Attributes:
        path: The file that records what the artifact was made from; it is written last.
    """

    path: epath.Path

    def begin(self, inputs: Inputs, *, overwrite: bool) -> None:
        """Prepares the place before anything is computed.

        Raises:
            ValueError: It holds something begun from other inputs, and `overwrite` is not set.
        """

    def read(self) -> Any:
        """Returns the content."""

    def write(self, inputs: Inputs, content: Any) -> None:
        """Writes the content, whole or not at all."""


class JsonArtifact:
    """A JSON file."""

    def __init__(self, path: epath.Path) -> None:
        self.path = path

    def begin(self, inputs: Inputs, *, overwrite: bool) -> None:
        """Does nothing."""

    def read(self) -> Mapping[str, Any]:
        """Returns the keys of the file, its inputs among them."""
        return read_json(self.path)

    def write(self, inputs: Inputs, content: Mapping[str, Any]) -> None:
        """Writes inputs and content."""
        write_json(self.path, {INPUTS: inputs, **content})


class ArrayArtifact(JsonArtifact):
    """An .npz file of arrays."""

    def read(self) -> Mapping[str, Any]:
        """Returns the arrays by name."""
        return read_arrays(self.path)

    def write(self, inputs: Inputs, content: Mapping[str, Any]) -> None:
        """Writes inputs and arrays."""
        write_arrays(self.path, inputs, **content)


class ResumableFolder(JsonArtifact):
    """A folder that fills up while it is computed, over several attempts; a JSON file ends it.

    Attributes:
        stamp: The file that records, from the beginning, what the folder is made from.
    """

    def __init__(self, path: epath.Path) -> None:
        super().__init__(path)
        self.stamp = path.parent / "inputs.json"

    def begin(self, inputs: Inputs, *, overwrite: bool) -> None:
        """Stamps the folder; one begun from other inputs is refused, or cleared on overwrite."""
        if not is_current(self.stamp, inputs, overwrite=overwrite):
            if self.stamp.exists():
                self.stamp.parent.rmtree()
            write_json(self.stamp, {INPUTS: inputs})


Fill = Callable[[epath.Path], Mapping[str, Any]]
"""Fills an empty folder and returns the content of its record."""


class RecordedFolder(JsonArtifact):
    """A folder, and next to it a JSON file with its checksums.

    Attributes:
        folder: The folder.
    """

    def __init__(self, folder: epath.Path, path: epath.Path) -> None:
        super().__init__(path)
        self.folder = folder

    def write(self, inputs: Inputs, content: Fill) -> None:  # type: ignore[override]
        """Fills the folder, then writes the record."""
        self.path.unlink(missing_ok=True)
        if self.folder.exists():
            self.folder.rmtree()
        found = content(self.folder)
        write_json(self.path, {INPUTS: inputs, **found, "files": file_checksums(self.folder)})

    def verify(self) -> None:
        """Compares the folder's files with their checksums.

        Raises:
            ValueError: The record is missing, or a file has changed.
        """
        record, mend = read_json(self.path), f"delete {self.path} and run again"
        if "files" not in record:
            raise ValueError(f"{self.path} has no checksums of {self.folder}; {mend}")
        verify_checksums(self.folder, record["files"], mend)


class ReplaceableFolder(JsonArtifact):
    """A folder that holds its own record, and stays until the one that replaces it is whole.

    Attributes:
        folder: The folder.
        draft: Where its replacement is made.
        former: Where it is moved before it is removed.
    """

    def __init__(self, path: epath.Path, draft: epath.Path) -> None:
        super().__init__(path)
        self.folder, self.draft = path.parent, draft
        self.former = draft.parent / f"{path.parent.name}.former"

    def begin(self, inputs: Inputs, *, overwrite: bool) -> None:
        """Finishes a replacement that a killed process left whole, if it is the one wanted; removes leftovers."""
        record = self.draft / self.path.name
        if record.exists() and (not self.folder.exists() or read_inputs(record) == plain(inputs)):
            self._replace()
        for leftover in (self.draft, self.former):
            if leftover.exists():
                leftover.rmtree()

    def write(self, inputs: Inputs, content: Fill) -> None:  # type: ignore[override]
        """Fills a folder, writes the record into it, and puts it in place."""
        home = self.draft if self.folder.exists() else self.folder
        if home.exists():
            home.rmtree()
        write_json(home / self.path.name, {INPUTS: inputs, **content(home)})
        if home == self.draft:
            self._replace()

    def _replace(self) -> None:
        """Puts the draft in place; the former folder is moved away first, since a half-removed one would seem whole."""
        if self.folder.exists():
            if self.former.exists():
                self.former.rmtree()
            self.folder.rename(self.former)
        self.draft.rename(self.folder)
        if self.former.exists():
            self.former.rmtree()


EXPORT_SUMS = "checksums.json"
"""File of an exported folder that records its inputs and the sha256 of its other files; it is written last."""

CARD = "README.md"
"""File of an exported folder that people edit: the model card, which has no checksum."""


class Exported(JsonArtifact):
    """A folder in another tool's format, whose writer makes it whole or not at all; one of its files has their checksums.

    Attributes:
        folder: The folder.
    """

    def __init__(self, folder: epath.Path) -> None:
        super().__init__(folder / EXPORT_SUMS)
        self.folder = folder

    def write(self, inputs: Inputs, content: Callable[[epath.Path], Any]) -> None:  # type: ignore[override]
        """Writes the folder in place of one that is there, then the checksums."""
        if self.folder.exists():
            self.folder.rmtree()
        content(self.folder)
        files = {name: value for name, value in file_checksums(self.folder).items() if name != CARD}
        write_json(self.path, {INPUTS: inputs, "files": files})


def verify_export(folder: epath.Path) -> None:
    """Compares an exported folder's files with their checksums, if it has any; files that were added are let be.

    Raises:
        ValueError: The checksums are damaged, or a file is missing or has changed.
    """
    path, mend = folder / EXPORT_SUMS, f"delete {folder} and export again: merit run --stages=export"
    if not is_there(path):
        return
    record = read_json(path)
    if not isinstance(record, Mapping) or not isinstance(record.get("files"), Mapping):
        return  # another tool's file of this name
    verify_checksums(folder, record["files"], mend, added=True)
