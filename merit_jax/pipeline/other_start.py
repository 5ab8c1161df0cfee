"""Other parameters than theta0's as the start of a run, in theta0's format."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from merit_jax.core.types import Model
from merit_jax.pipeline.shared import Theta0


class OtherStart(Theta0):
    """A start whose format, tokenizer and settings are theta0's; `source`, `leaves` and `check_unchanged` are its own.

    Args:
        theta0: The checkpoint that the parameters descend from.
    """

    def __init__(self, theta0: Theta0) -> None:
        self.settings, self.dtype, self.origin = theta0.settings, theta0.dtype, theta0.origin
        self.logical_axes, self.abstract = theta0.logical_axes, theta0.abstract
        self._theta0 = theta0

    def export(
        self, read: Callable[[str], Any], directory: epath.Path, extra: Mapping[str, str], stop: Sequence[int] = ()
    ) -> None:
        """Writes other parameters in the format of theta0, with its tokenizer and further text files."""
        self._theta0.export(read, directory, extra, stop)

    def export_without_heads(self, *args: Any) -> None:
        """Writes other parameters without some attention heads, as theta0 does."""
        self._theta0.export_without_heads(*args)

    def reopened(self, directory: epath.Path, like: Model) -> tuple[Model, Theta0]:
        """Opens an exported folder, as theta0 does."""
        return self._theta0.reopened(directory, like)
