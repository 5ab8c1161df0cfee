"""One quantity of the logs of branches, as lines over their steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from merit_jax.reporting.figures import Number
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.series import Series
from merit_jax.reporting.theme import look

Log = Sequence[Mapping[str, Any]]


def having(log: Log, key: str) -> Log:
    """Returns the lines of a log that have a quantity."""
    return [line for line in log if key in line]


def along(log: Log, key: str) -> tuple[list[Number], list[Number]]:
    """Returns the steps of the lines that have a quantity, and the quantity."""
    found = having(log, key)
    return [line["step"] for line in found], [line[key] for line in found]


def branch_lines(artifacts: Artifacts, key: str) -> list[Series]:
    """Returns a line for each branch whose log has a quantity."""
    lines = []
    for index, branch in enumerate(artifacts.branches):
        if found := having(branch.log, key):
            tips = [f"branch {index}, step {line['step']}: {line[key]:.3g}" for line in found]
            lines.append(Series(f"branch {index}", *along(found, key), tips, look(index)[0], size=3, line=True))
    return lines
