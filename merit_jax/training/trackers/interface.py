"""Experiment trackers: what each is given, and what each does."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from etils import epath


class TrackedRun(NamedTuple):
    """One branch, as a tracker knows it.

    Attributes:
        project: Name of the project.
        group: Name of what the branches of one run have in common.
        name: Name of the branch.
        id: Of the branch; the same when it is resumed, and no other's.
        directory: Where a tracker may keep files of this group.
        config: The run's configuration, as JSON values.
    """

    project: str
    group: str
    name: str
    id: str
    directory: epath.Path
    config: Mapping[str, Any]


@runtime_checkable
class Tracker(Protocol):
    """The curves of one branch in one tracker; its methods may raise whatever its library does."""

    @property
    def latest(self) -> int:
        """The last step that the tracker had when it was opened; -1 if it had none."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values of a step, which is larger than those before."""

    def close(self, *, finished: bool) -> None:
        """Sends what is left; says whether the branch is finished, or will be resumed."""


class TrackerKind(NamedTuple):
    """A tracker by name.

    Attributes:
        module: The module that it needs.
        package: The package that has it, as pip names it.
        open: Opens the curves of a branch, new or resumed.
    """

    module: str
    package: str
    open: Callable[[TrackedRun], Tracker]


def flat_values(line: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a line of `metrics.jsonl` but the step, those by dataset as "KEY/DATASET".

    Examples:
        >>> flat_values({"step": 10, "loss": 0.5, "loss_by_dataset": {"copy": 0.25}})
        {'loss': 0.5, 'loss_by_dataset/copy': 0.25}
    """
    found: dict[str, float] = {}
    for key, value in line.items():
        parts = {f"{key}/{name}": part for name, part in value.items()} if isinstance(value, Mapping) else {key: value}
        found |= {name: float(part) for name, part in parts.items() if name != "step"}
    return found


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns the keys of a config as "SECTION.KEY", with their values as text.

    Examples:
        >>> flat_settings({"seed": 0, "train": {"epochs": 1.0}})
        {'seed': '0', 'train.epochs': '1.0'}
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        found |= flat_settings(value, f"{name}.") if isinstance(value, Mapping) else {name: str(value)}
    return found
