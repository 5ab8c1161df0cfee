"""Reads the scores of models, and refuses those of a version that recorded less."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir


def read_evaluation(workdir: Workdir) -> Mapping[str, Any]:
    """Reads `evaluation.json`.

    Raises:
        ValueError: It is missing or damaged, or an earlier version wrote it, without the scores of every question.
    """
    content = read_json(workdir.evaluation)
    sets = [
        scores
        for model in content["models"].values()
        for part in ("suites", "datasets")
        for scores in model.get(part, {}).values()
    ]
    if "questions" not in content or any("correct" not in scores for scores in sets):
        raise _older(workdir.evaluation, "the scores of every question")
    return content


def read_frontier(workdir: Workdir) -> Mapping[str, Any]:
    """Reads `frontier.json`.

    Raises:
        ValueError: It is missing or damaged, or an earlier version wrote it, which chose scales on the records that it reported.
    """
    content = read_json(workdir.frontier)
    if any(key not in model for model in content["models"].values() for key in ("choosing", "kept")):
        raise _older(workdir.frontier, "the halves of the suites on which scales are chosen and reported")
    return content


def _older(path: epath.Path, what: str) -> ValueError:
    return ValueError(
        f"{path} was written by an earlier version, without {what}; repeat the command that wrote it (launch.run or "
        "launch.experiment) with --overwrite to make it again"
    )
