"""The parts that runs of one theta0 share: its checkpoint and model, the tokenizer, and everything that is made of them once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from etils import epath

from merit_jax.core.types import Dataset, ImageReader, LeafReader, Model, Params

T = TypeVar("T")


@runtime_checkable
class Theta0(Protocol):
    """The merge-ready checkpoint that every branch starts from.

    Attributes:
        source: Stamp of its files, which changes whenever one is written, as JSON values.
        settings: What its config says of the computation, as JSON values.
        dtype: Type of the computation.
        logical_axes: Tree like the params; per leaf a tuple of logical axis names.
        abstract: Tree like the params; per leaf its shape and dtype.
        origin: "OWNER/NAME@COMMIT" of a checkpoint of the hub; empty of another.
    """

    source: Mapping[str, Any]
    settings: Mapping[str, Any]
    dtype: str
    logical_axes: Params
    abstract: Params
    origin: str

    def check_unchanged(self) -> None:
        """Raises ValueError if a file has been written since the checkpoint was opened."""

    def leaves(self) -> LeafReader:
        """Returns a reader of single leaves."""

    def export(
        self, read: Callable[[str], Any], directory: epath.Path, extra: Mapping[str, str], stop: Sequence[int] = ()
    ) -> None:
        """Writes other parameters in the format of this checkpoint, with its tokenizer and further text files.

        Responses of the exported model end at the tokens `stop` too.
        """

    def export_without_heads(
        self,
        read: Callable[[str], Any],
        kept: Mapping[str, Any],
        directory: epath.Path,
        card: Callable[[Sequence[str]], Mapping[str, str]],
        stop: Sequence[int] = (),
    ) -> None:
        """Writes other parameters without some attention heads: a smaller model where the format can say it.

        Args:
            read: Leaf path -> the leaf, of all heads.
            kept: Part -> True for the heads that stay, bool [layers, heads].
            directory: Folder to make.
            card: Sentences on how heads are removed -> text files to add, by name.
            stop: As for `export`.
        """

    def reopened(self, directory: epath.Path, like: Model) -> tuple[Model, "Theta0"]:
        """Opens a folder that was exported; it computes as the model `like` does."""


class Shared:
    """Model, theta0 and tokenizer, and everything that is loaded or compiled once for all runs derived from one another.

    Attributes:
        model: Pure functions of the parameters.
        theta0: The starting checkpoint.
        tokenizer: A Hugging Face tokenizer.
        reader: Reads images; None for a text model.
    """

    def __init__(self, model: Model, theta0: Theta0, tokenizer: Any, reader: ImageReader | None = None) -> None:
        self.model, self.theta0, self.tokenizer, self.reader = model, theta0, tokenizer, reader
        self._made: dict[str, list[tuple[Any, Any]]] = {}
        self._fixed: dict[str, Any] = {}

    def once(self, name: str, depends_on: Any, make: Callable[[], T], *, kept: int = 4) -> T:
        """Returns the value made before under a name from the same dependencies, or a new one.

        Args:
            name: Name of the value.
            depends_on: Everything of a run's configuration that decides the value; compared with `==`.
            make: Makes it.
            kept: Values of this name that are kept, the newest.
        """
        if name in self._fixed:
            return self._fixed[name]
        values = self._made.get(name, [])
        for known, value in values:
            if known == depends_on:
                return value
        self._made[name] = values[: kept - 1]  # frees an old value before the new one is made
        self._made[name] = [(depends_on, make()), *self._made[name]]
        return self._made[name][0][1]

    def forget(self, name: str) -> None:
        """Frees what was made under a name; it is made again when it is asked for."""
        self._made.pop(name, None)

    def with_value(self, name: str, value: Any) -> "Shared":
        """Returns a copy in which `once` gives a fixed value under a name, whatever it depends on."""
        other = Shared(self.model, self.theta0, self.tokenizer, self.reader)
        other._made, other._fixed = dict(self._made), {**self._fixed, name: value}
        return other

    def starting_from(self, theta0: Theta0, datasets: tuple[Dataset, ...]) -> "Shared":
        """Returns what a run from another start on other data shares with this one; of the parameters, one start's are held."""
        other = Shared(self.model, theta0, self.tokenizer, self.reader)
        other._made, other._fixed = self._made, {**self._fixed, "datasets": datasets}
        return other
