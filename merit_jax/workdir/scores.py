"""Reads the scores of models, and refuses those of a version that recorded less."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import THETA0, Workdir


def read_evaluation(workdir: Workdir) -> Mapping[str, Any]:
    """Reads `evaluation.json`.

    Raises:
        ValueError: It is missing or damaged, or an earlier version wrote it, without the scores of every question.
    """
    content = _read(workdir.evaluation)
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
    content = _read(workdir.frontier)
    if any(key not in model for model in content["models"].values() for key in ("choosing", "kept")):
        raise _older(workdir.frontier, "the halves of the suites on which scales are chosen and reported")
    return content


def current_frontier(workdir: Workdir) -> Mapping[str, Any] | None:
    """Reads `frontier.json` as far as it is of the records and models of `evaluation.json`, so that both can be shown together.

    Scores that were made again without a frontier, on other records or of other models leave an earlier `frontier.json` behind.

    Returns:
        Its content without models that have changed since; None if there is no frontier, or one of other records.

    Raises:
        ValueError: A file is damaged, or an earlier version wrote it.
    """
    if not workdir.frontier.exists():
        return None
    if not workdir.evaluation.exists():
        return read_frontier(workdir)
    evaluation = _read(workdir.evaluation)
    inputs = evaluation.get("inputs", {})
    if inputs.get("half") == "all":
        return None
    content, known = read_frontier(workdir), evaluation["models"]
    inputs = {**inputs, **inputs.get("evaluate", {})}
    if any(key in inputs and inputs[key] != value for key, value in content.get("inputs", {}).items()):
        return None
    models = {n: m for n, m in content["models"].items() if n not in known or m.get("inputs") == known[n].get("inputs")}
    return {**content, "models": models} if THETA0 in models else None


def _read(path: epath.Path) -> Mapping[str, Any]:
    """Reads an artifact with the entries of models.

    Raises:
        ValueError: It is missing or damaged, or has no such entries.
    """
    content = read_json(path)
    models = content.get("models") if isinstance(content, Mapping) else None
    if not isinstance(models, Mapping) or not all(isinstance(model, Mapping) for model in models.values()):
        raise ValueError(f"{path} has no scores of models; delete it and run its stage again")
    return content


def _older(path: epath.Path, what: str) -> ValueError:
    return ValueError(
        f"{path} was written by an earlier version, without {what}; repeat the command that wrote it (merit run or "
        "merit experiment) with --overwrite to make it again"
    )
